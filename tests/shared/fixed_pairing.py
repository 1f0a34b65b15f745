"""Pairings of given tables, for losses of batches that no `Links` describe; and simple `Links`."""

from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import Tensor

from embedtrain.rules import row_counts
from embedtrain.types import Allowed, BlockName, Blocks, Guide, Links, Pairing


def fixed(
    target: Tensor,
    allowed: Tensor,
    *,
    scores: Tensor | None = None,
    query_queries: Tensor | None = None,
    doc_queries: Tensor | None = None,
    doc_docs: Tensor | None = None,
    owner: Tensor | None = None,
    teacher: Tensor | None = None,
    guide: Guide | None = None,
    task: Tensor | None = None,
    step: int = 0,
) -> Pairing:
    """A pairing of given tables.

    `allowed` is (B, C) bool. Left out: `query_queries` allows every other query of the task, `doc_queries` is
    `allowed` transposed at the targets without shared targets, `doc_docs` is `allowed` without the target,
    `owner` is the first query whose target a document is (-1 for others), and there is one task.
    """
    rows = torch.arange(len(target), device=target.device)
    task = torch.zeros_like(target) if task is None else task
    if owner is None:
        owner = torch.full((allowed.shape[1],), -1, device=target.device)
        owner[target.flip(0)] = rows.flip(0)
    itself = rows[:, None] == rows[None, :]
    if query_queries is None:
        query_queries = (task[:, None] == task[None, :]) & ~itself
    if doc_queries is None:
        doc_queries = (allowed[:, target].T & (target[:, None] != target[None, :])) | itself
    if doc_docs is None:
        doc_docs = allowed.clone()
        doc_docs[rows, target] = False
    tables = FixedCandidates(Blocks(allowed, query_queries, doc_queries, doc_docs))
    return Pairing(target, owner, task, step, tables, scores, teacher, guide)


class FixedCandidates(NamedTuple):
    """`Candidates` of given tables."""

    tables: Blocks  # bool, all four with B rows

    @property
    def needs_student(self) -> bool:
        """Never: the tables decide."""
        return False

    def allowed(self, rows: Tensor, names: Collection[BlockName], student: Blocks | None) -> Allowed:
        """As `Candidates.allowed`."""
        wanted: set[BlockName] = {"query_docs", *names}
        blocks = Blocks(**{name: getattr(self.tables, name)[rows] for name in wanted})
        return Allowed(blocks, row_counts(blocks.query_docs) - 1, {})


def columns_links(queries: int, documents: int) -> Links:
    """All texts distinct: documents are `queries` positives, then as many negatives and so on, by column."""
    rows, docs = torch.arange(queries), torch.arange(queries, queries * (1 + documents))
    return Links(
        content_ids=torch.arange(queries * (1 + documents)),
        query=rows,
        docs=docs,
        owner=rows.repeat(documents),
        positive=rows,
        known=docs[:queries],
        known_owner=rows,
        task=torch.zeros_like(rows),
        rows=rows,
        scores=None,
    )
