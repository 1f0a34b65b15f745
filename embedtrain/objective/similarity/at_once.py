"""All sub-models of a chunk in the same kernels, for a device on which a kernel costs more than its numbers.

On a CPU `Pass` takes one sub-model after the other, whose blocks stay in the cache. Both give the same.

Letters: S sub-models, B queries, b those of a chunk, C documents, K prefixes of one layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from embedtrain.objective.similarity.nested import Gradient, Side, segments
from embedtrain.objective.similarity.row_terms import RowTerm, Sloped
from embedtrain.transfers import moved
from embedtrain.types import RowFacts, SubModel


class Noted(NamedTuple):
    """What the largest sub-model makes of a chunk."""

    losses: Tensor  # (b,)
    rank_first: Tensor  # (b,) bool


class AtOnce:
    """One evaluation of a loss that knows its derivative, on cosines.

    Args:
        loss: the loss.
        term: its factors.
        dims: prefixes of each layer, deepest layer first, dims ascending.
        weights: of each sub-model.
        sides: queries and documents of each layer.
        gain: what the loss wants cosines times.
    """

    def __init__(
        self,
        loss: Sloped,
        term: RowTerm,
        dims: Mapping[int, Sequence[int]],
        weights: Mapping[SubModel, float],
        sides: Mapping[int, tuple[Side, Side]],
        gain: float,
    ) -> None:
        self._loss, self._dims, self._sides = loss, dims, sides
        self.subs = [SubModel(layer, dim) for layer, each in dims.items() for dim in each]
        self._largest = self.subs.index(max(self.subs))
        some = next(iter(sides.values()))[0].values
        numbers = torch.tensor([weights[sub] for sub in self.subs], dtype=some.dtype)
        self._weights = moved(numbers, some.device)  # (S,)
        left, right = (
            torch.cat([side.inverse for side in each if side.inverse is not None])
            for each in zip(*sides.values(), strict=True)
        )
        self._left, self._right = left * gain, right  # (S, B), (S, C)
        self._rows = term.rows * term.weight  # (B,)
        self._factor = self._weights[:, None] * self._rows  # (S, B)
        self._scale = self._factor * self._left  # (S, B)
        self._shrinks = torch.zeros_like(left), torch.zeros_like(right)
        self._parts = some.new_zeros(len(self.subs))
        self.gradients = {layer: self._empty(layer, place) for layer, place in self._places()}

    def chunk(self, facts: RowFacts, blocked: Tensor) -> Noted:
        """Add these queries to the parts and gradients; `blocked` (b, C) are no candidates of theirs."""
        assert facts.here is not None
        rows = slice(int(facts.here[0]), int(facts.here[-1]) + 1)
        logits = self._dots(rows)  # (S, b, C)
        logits.mul_(self._right[:, None]).mul_(self._left[:, rows, None])
        open_ = logits.masked_fill(blocked, -torch.inf)
        every = facts._replace(target=facts.target.repeat(len(self.subs)))
        losses, slopes = self._loss.slopes(open_.flatten(0, 1), None, every)
        losses = losses.view(logits.shape[:2])  # (S, b)
        self._parts += (losses * self._rows[rows]).sum(1)
        positive = open_[self._largest].gather(1, facts.target[:, None])[:, 0]
        noted = Noted(losses[self._largest], open_[self._largest].amax(1) <= positive)
        self._flow_back(rows, slopes.view_as(logits), logits)
        return noted

    def value(self) -> tuple[Tensor, dict[SubModel, Tensor]]:
        """The total, and the part of each sub-model before its weight."""
        return self._weights @ self._parts, dict(zip(self.subs, self._parts.unbind(), strict=True))

    def _places(self) -> list[tuple[int, int]]:
        """Each layer and the number of its first sub-model."""
        first, found = 0, []
        for layer, dims in self._dims.items():
            found.append((layer, first))
            first += len(dims)
        return found

    def _empty(self, layer: int, place: int) -> tuple[Gradient, Gradient]:
        """Zeros to add the gradients of a layer's queries and documents to."""
        own = slice(place, place + len(self._dims[layer]))
        query, docs = (
            Gradient(torch.zeros_like(side.values), shrink[own])
            for side, shrink in zip(self._sides[layer], self._shrinks, strict=True)
        )
        return query, docs

    def _dots(self, rows: slice) -> Tensor:
        """(S, b, C) dot products of every prefix."""
        count, columns = self._left[:, rows].shape[1], self._right.shape[1]
        found = self._left.new_empty(len(self.subs), count, columns)
        for layer, place in self._places():
            query, docs = self._sides[layer]
            for number, (begin, end) in enumerate(segments(self._dims[layer]), start=place):
                x, y = query.values[rows, begin:end], docs.values[:, begin:end].T
                if number == place:
                    torch.mm(x, y, out=found[number])
                else:
                    torch.addmm(found[number - 1], x, y, out=found[number])
        return found

    def _flow_back(self, rows: slice, slopes: Tensor, logits: Tensor) -> None:
        """Add the gradient of these queries; both blocks (S, b, C) are used up."""
        share, factor = logits.mul_(slopes), self._factor[:, rows]
        self._shrinks[0][:, rows].addcmul_(share.sum(2), factor, value=-1)
        self._shrinks[1].unsqueeze(1).baddbmm_(factor.unsqueeze(1), share, alpha=-1)
        slopes.mul_(self._scale[:, rows, None]).mul_(self._right[:, None])
        for layer, place in self._places():
            query, docs = self._sides[layer]
            to_query, to_docs = self.gradients[layer]
            numbered = list(enumerate(segments(self._dims[layer]), start=place))
            for number, (begin, end) in reversed(numbered):
                if number < numbered[-1][0]:
                    slopes[number].add_(slopes[number + 1])  # of the prefixes that hold this segment
                to_query.values[rows, begin:end].addmm_(slopes[number], docs.values[:, begin:end])
                to_docs.values[:, begin:end].addmm_(slopes[number].T, query.values[rows, begin:end])
