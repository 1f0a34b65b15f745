"""Who may be a negative, by the vectors of one sub-model: the same for all that are scored.

Letters: B queries, b some of them, C documents, d coordinates.
"""

from __future__ import annotations

from collections.abc import Collection

import torch.nn.functional as F
from torch import Tensor

from embedtrain.transfers import moved
from embedtrain.types import Allowed, BlockName, Blocks, Candidates, Pairing


def decided(pairing: Pairing, query: Tensor, docs: Tensor) -> Pairing:
    """The pairing, its rules asked for the cosines of these vectors where they ask for the model's.

    Args:
        pairing: of the batch.
        query: (B, d) prefixes, not normalised.
        docs: (C, d) likewise.
    """
    if not pairing.candidates.needs_student:
        return pairing
    unit = [F.normalize(part.detach(), dim=-1) for part in (query, docs)]
    return pairing._replace(candidates=_Decided(pairing.candidates, pairing.target, *unit))


class _Decided:
    """`Candidates` that look at the vectors given here, whatever is being scored."""

    needs_student = False

    def __init__(self, inner: Candidates, target: Tensor, query: Tensor, docs: Tensor) -> None:
        self._inner, self._target, self._query, self._docs = inner, target, query, docs

    def allowed(self, rows: Tensor, names: Collection[BlockName], student: Blocks | None) -> Allowed:
        """As `Candidates.allowed`."""
        index = moved(rows, self._docs.device)
        left = {"query": self._query[index], "doc": self._docs[self._target[index]]}  # (b, d)
        right = {"docs": self._docs, "queries": self._query}
        sides = {name: name.split("_") for name in {"query_docs", *names}}
        blocks = {name: left[one] @ right[other].T for name, (one, other) in sides.items()}
        return self._inner.allowed(rows, names, Blocks(**blocks))
