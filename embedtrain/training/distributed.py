"""Rows and links of every rank: the only file that talks to other ranks during a step.

Where every rank computes the loss of the whole global batch, backward through `gather_rows` sums the W
identical gradients and DDP's mean divides by W, so the result is the single-process gradient with no factor
of the world size. Told that the gradients are identical, it multiplies by W instead of talking.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from embedtrain.ranks import rank, world_size
from embedtrain.transfers import moved
from embedtrain.types import Embeddings, Links


class Shares(NamedTuple):
    """How much of a batch each rank holds."""

    texts: list[int]
    queries: list[int]
    docs: list[int]
    known: list[int]
    scores: bool  # whether any rank has them
    teacher: bool


def shares(local: Links, device: torch.device) -> Shares:
    """What all ranks hold, in one message between devices."""
    mine = [len(local.content_ids), len(local.query), len(local.docs), len(local.known)]
    flags = [local.scores is not None, local.teacher is not None]
    row = moved(torch.tensor([[*mine, *map(int, flags)]]), device)
    texts, queries, docs, known, scores, teacher = gather_rows(row, [1] * world_size()).T.tolist()
    return Shares(texts, queries, docs, known, any(scores), any(teacher))


def gather_rows(rows: Tensor, counts: list[int] | None = None) -> Tensor:
    """The rows (m_r, ...) of all ranks in rank order, (Σ m_r, ...); m_r may differ by rank.

    `counts`, where they are known, are the m_r: asking for them is a message more.
    """
    if world_size() == 1:
        return rows
    known = _sizes(rows) if counts is None else counts
    gathered: Tensor = _GatherRows.apply(rows, known, True)  # type: ignore[no-untyped-call]
    return gathered


def gather_embeddings(
    local: Embeddings, counts: list[int] | None = None, *, identical: bool = False
) -> Embeddings:
    """The texts of all ranks in rank order: (L, M_r, D) to (L, Σ M_r, D), with gradient.

    Args:
        local: the texts of this rank.
        counts: the M_r, where they are known.
        identical: what is made of the result has the same gradient on every rank, so that backward need not
            ask the others for theirs.
    """
    if world_size() == 1:
        return local
    rows = local.values.transpose(0, 1).contiguous()  # (M_r, L, D)
    known = _sizes(rows) if counts is None else counts
    every: Tensor = _GatherRows.apply(rows, known, not identical)  # type: ignore[no-untyped-call]
    return Embeddings(every.transpose(0, 1), local.layers)


def gather_links(local: Links, held: Shares | None = None, *, device: torch.device) -> Links:
    """The links of the global batch, on the host: indices point to where each rank's rows now lie.

    They travel between the devices of the ranks: those whose backend is NCCL have nothing else.

    A field of numbers (scores, teacher) that only some ranks have is NaN for the rows of the others.
    """
    if world_size() == 1:
        return local
    held = shares(local, device) if held is None else held
    texts, queries, docs = (sum(counts[: rank()]) for counts in held[:3])
    shifted = local.shifted(texts, queries, docs)
    # all numbers travel in one message: ten small ones would cost more than their content
    numbers = {name: kind for name, kind in NUMBERS.items() if getattr(held, name)}
    kinds = WHOLE | numbers
    lengths = [[getattr(held, kind)[place] for kind in kinds.values()] for place in range(world_size())]
    mine = [getattr(shifted, name) for name in WHOLE]
    mine += [_bits(getattr(local, name), getattr(held, kind)[rank()]) for name, kind in numbers.items()]
    packed = gather_rows(moved(torch.cat(mine), device), [sum(row) for row in lengths]).cpu()
    parts = torch.split(packed, [length for row in lengths for length in row])
    whole: dict[str, Any] = {name: torch.cat(parts[place :: len(kinds)]) for place, name in enumerate(kinds)}
    for name in NUMBERS:
        own = getattr(local, name)
        kind = torch.float32 if own is None else own.dtype
        whole[name] = whole[name].view(torch.float64).to(kind) if name in numbers else None
    return shifted._replace(**whole)


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


def most_over_ranks(counts: Sequence[int], device: torch.device) -> list[int]:
    """The largest of each number over the ranks, which all ask for as many; one message, one wait."""
    if world_size() == 1:
        return [*counts]
    most = moved(torch.tensor([*counts]), device)
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    numbers: list[int] = most.tolist()
    return numbers


WHOLE = {  # the whole numbers of `Links`, and what each has one of
    "content_ids": "texts",
    "query": "queries",
    "docs": "docs",
    "owner": "docs",
    "positive": "queries",
    "known": "known",
    "known_owner": "known",
    "task": "queries",
    "rows": "queries",
}
NUMBERS = {"scores": "queries", "teacher": "docs"}  # which some ranks may not have


def _bits(part: Tensor | None, count: int) -> Tensor:
    """Numbers as whole ones of as many bytes as others have, NaN where a rank has none."""
    wide = torch.full((count,), torch.nan, dtype=torch.float64) if part is None else part.double()
    return wide.view(torch.int64)


def _sizes(rows: Tensor) -> list[int]:
    mine = torch.tensor([rows.shape[0]], device=rows.device)
    all_sizes = [torch.empty_like(mine) for _ in range(world_size())]
    dist.all_gather(all_sizes, mine)
    return [int(size) for size in all_sizes]


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
