"""The in-batch parts of the AnglE mixtures, as losses of rows of cosines, one row per query.

Letters: B queries, b those of a chunk, C documents, d coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedtrain.objective.similarity.nested import Similarity
from embedtrain.types import BlockName, Blocks, RowFacts


class InBatch(nn.Module):
    """Both texts of each pair against all others of the batch: a row loss, the sum of two cross-entropies."""

    similarity: Similarity = "cosine"
    blocks: Sequence[BlockName] = ("query_docs", "query_queries", "doc_queries", "doc_docs")

    def __init__(self, inverse_temperature: float) -> None:
        super().__init__()
        self.inverse_temperature = inverse_temperature

    def rows(self, scores: Blocks, allowed: Blocks, facts: RowFacts) -> Tensor:
        """(b,) losses."""
        from_query = self._half(
            (scores.query_docs, scores.query_queries),
            (allowed.query_docs, allowed.query_queries),
            facts.target,
        )
        from_doc = self._half(
            (scores.doc_queries, scores.doc_docs), (allowed.doc_queries, allowed.doc_docs), facts.rows
        )
        return from_query + from_doc

    def _half(
        self, scores: tuple[Tensor | None, ...], allowed: tuple[Tensor | None, ...], pair: Tensor
    ) -> Tensor:
        """Cross-entropy of the column `pair` (b,) among what is allowed, (b,)."""
        logits = self.inverse_temperature * torch.cat(cast(tuple[Tensor, ...], scores), 1)  # (b, C + B)
        entries = torch.cat(cast(tuple[Tensor, ...], allowed), 1)
        return F.cross_entropy(torch.where(entries, logits, -torch.inf), pair, reduction="none")


class OverDocuments(nn.Module):
    """Each query against all documents of the batch or its positives alone: a row loss."""

    similarity: Similarity = "cosine"
    blocks: Sequence[BlockName] = ("query_docs",)

    def __init__(self, inverse_temperature: float, positives_only: bool) -> None:
        super().__init__()
        self.inverse_temperature, self.positives_only = inverse_temperature, positives_only

    def rows(self, scores: Blocks, allowed: Blocks, facts: RowFacts) -> Tensor:
        """(b,) losses."""
        entries = allowed.query_docs  # (b, C)
        if self.positives_only:
            entries = entries & cast(Tensor, facts.positive)[None, :]
        logits = torch.where(entries, self.inverse_temperature * scores.query_docs, -torch.inf)
        return F.cross_entropy(logits, facts.target, reduction="none")
