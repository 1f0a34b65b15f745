"""Rows and links of every rank: the only file that talks to other ranks during a step.

Where every rank computes the loss of the whole global batch, backward through `gather_rows` sums the W
identical gradients and DDP's mean divides by W, so the result is the single-process gradient with no factor
of the world size. Told that the gradients are identical, it multiplies by W instead of talking.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from embedtrain.types import Embeddings, Links


def world_size() -> int:
    """How many ranks train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this rank, 0-based; 0 without a process group."""
    return dist.get_rank() if world_size() > 1 else 0


def gather_rows(rows: Tensor) -> Tensor:
    """The rows (m_r, ...) of all ranks in rank order, (Σ m_r, ...); m_r may differ by rank."""
    if world_size() == 1:
        return rows
    gathered: Tensor = _GatherRows.apply(rows, sizes(rows), True)  # type: ignore[no-untyped-call]
    return gathered


def gather_embeddings(local: Embeddings, *, identical: bool = False) -> Embeddings:
    """The texts of all ranks in rank order: (L, M_r, D) to (L, Σ M_r, D), with gradient.

    Args:
        local: the texts of this rank.
        identical: what is made of the result has the same gradient on every rank, so that backward need not
            ask the others for theirs.
    """
    if world_size() == 1:
        return local
    rows = local.values.transpose(0, 1).contiguous()  # (M_r, L, D)
    every: Tensor = _GatherRows.apply(rows, sizes(rows), not identical)  # type: ignore[no-untyped-call]
    return Embeddings(every.transpose(0, 1), local.layers)


def gather_links(local: Links) -> Links:
    """The links of the global batch: indices point to where each rank's rows now lie.

    A field of numbers (scores, teacher) that only some ranks have is NaN for the rows of the others.
    """
    if world_size() == 1:
        return local
    mine = [len(local.text_ids), len(local.query), len(local.docs), len(local.known)]
    mine += [local.scores is not None, local.teacher is not None]
    counts = gather_rows(torch.tensor([mine], device=local.query.device)).tolist()  # W x 6
    texts, queries, docs = (sum(row[column] for row in counts[: rank()]) for column in range(3))
    moved = local._replace(
        query=local.query + texts,
        docs=local.docs + texts,
        owner=local.owner + queries,
        positive=local.positive + docs,
        known_owner=local.known_owner + queries,
    )
    # all whole numbers travel in one message: nine small ones would cost more than their content
    lengths = [[row[column] for column in WHOLE.values()] for row in counts]
    packed = gather_rows(torch.cat([getattr(moved, name) for name in WHOLE]))
    parts = torch.split(packed, [length for row in lengths for length in row])
    whole = {name: torch.cat(parts[place :: len(WHOLE)]) for place, name in enumerate(WHOLE)}
    return moved._replace(
        **whole,
        scores=_gather_numbers(local.scores, local.query, any(row[4] for row in counts)),
        teacher=_gather_numbers(local.teacher, local.docs, any(row[5] for row in counts)),
    )


def mean_over_ranks(values: Tensor) -> Tensor:
    """The mean of equally shaped numbers over the ranks, without gradient."""
    return sum_over_ranks(values) / world_size()


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of equally shaped numbers over the ranks, without gradient."""
    values = values.detach()
    if world_size() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total


def sizes(rows: Tensor) -> list[int]:
    """How many rows each rank holds."""
    if world_size() == 1:
        return [rows.shape[0]]
    mine = torch.tensor([rows.shape[0]], device=rows.device)
    all_sizes = [torch.empty_like(mine) for _ in range(world_size())]
    dist.all_gather(all_sizes, mine)
    return [int(size) for size in all_sizes]


WHOLE = {  # the whole numbers of `Links` and the count (texts, queries, documents, known) of each
    "text_ids": 0,
    "query": 1,
    "docs": 2,
    "owner": 2,
    "positive": 1,
    "known": 3,
    "known_owner": 3,
    "task": 1,
    "rows": 1,
}


def _gather_numbers(part: Tensor | None, like: Tensor, some: bool) -> Tensor | None:
    if not some:
        return None
    return gather_rows(torch.full(like.shape, torch.nan, device=like.device) if part is None else part)


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int], talks: bool) -> Tensor:  # noqa: ANN401
        ctx.start, ctx.count, ctx.talks = sum(counts[: dist.get_rank()]), rows.shape[0], talks
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: rows.shape[0]] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        own = slice(ctx.start, ctx.start + ctx.count)
        if not ctx.talks:
            return grads[0][own] * dist.get_world_size(), None, None
        total = grads[0].contiguous().clone()  # all_reduce works in place; autograd still owns the input
        dist.all_reduce(total)
        return total[own], None, None
