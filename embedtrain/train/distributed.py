"""Rows and links of every rank, with gradient: the only file that talks to other ranks during a step.

Every rank computes the loss of the whole global batch. Backward through `gather_rows` sums the W identical
gradients and DDP's mean divides by W, so the result is the single-process gradient with no world-size factor.
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


def gather_rows(rows: Tensor) -> Tensor:
    """The rows (m_r, ...) of all ranks in rank order, (Σ m_r, ...); m_r may differ by rank."""
    if world_size() == 1:
        return rows
    gathered: Tensor = _GatherRows.apply(rows, _sizes(rows))  # type: ignore[no-untyped-call]
    return gathered


def gather_embeddings(local: Embeddings) -> Embeddings:
    """The texts of all ranks in rank order: (L, M_r, D) to (L, Σ M_r, D), with gradient."""
    if world_size() == 1:
        return local
    rows = gather_rows(local.values.transpose(0, 1).contiguous())  # (Σ M_r, L, D)
    return Embeddings(rows.transpose(0, 1), local.layers)


def gather_links(local: Links) -> Links:
    """The links of the global batch: indices point to where each rank's rows now lie."""
    if world_size() == 1:
        return local
    texts, queries, docs = (_offset(part) for part in (local.text_ids, local.query, local.docs))
    return Links(
        text_ids=gather_rows(local.text_ids),
        query=gather_rows(local.query + texts),
        docs=gather_rows(local.docs + texts),
        owner=gather_rows(local.owner + queries),
        positive=gather_rows(local.positive + docs),
        known=gather_rows(local.known),
        known_owner=gather_rows(local.known_owner + queries),
        task=gather_rows(local.task),
        rows=gather_rows(local.rows),
        scores=None if local.scores is None else gather_rows(local.scores),
    )


def _sizes(rows: Tensor) -> list[int]:
    mine = torch.tensor([rows.shape[0]], device=rows.device)
    all_sizes = [torch.empty_like(mine) for _ in range(world_size())]
    dist.all_gather(all_sizes, mine)
    return [int(size) for size in all_sizes]


def _offset(rows: Tensor) -> int:
    return sum(_sizes(rows)[: dist.get_rank()])


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int]) -> Tensor:  # noqa: ANN401
        ctx.start, ctx.count = sum(sizes[: dist.get_rank()]), rows.shape[0]
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: rows.shape[0]] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        total = grads[0].contiguous().clone()  # all_reduce works in place; autograd still owns the input
        dist.all_reduce(total)
        return total[ctx.start : ctx.start + ctx.count], None
