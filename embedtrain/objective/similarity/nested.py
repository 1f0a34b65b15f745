"""Similarities of every prefix of two sets of vectors from one pass, and their gradient, exactly.

With S_k the dot products of the first d_k coordinates: S_k = S_(k-1) + X[:, a:b] Y[:, a:b]ᵀ for the segment
a:b = d_(k-1):d_k, divided by the prefix norms where cosines are asked for. K prefixes so cost the products of
the widest one alone, forward and backward.

Letters: b rows, n columns, D width, K prefixes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Similarity = Literal["cosine", "dot"]
SMALLEST_NORM = 1e-12  # as torch.nn.functional.normalize


class Side(NamedTuple):
    """One set of vectors, and what divides its prefixes."""

    values: Tensor  # (n, D)
    inverse: Tensor | None  # (K, n) 1 / norm of each prefix; None for dot products

    def rows(self, index: Tensor) -> Side:
        """The vectors of `index`."""
        return Side(self.values[index], None if self.inverse is None else self.inverse[:, index])

    def times(self, gain: float) -> Side:
        """The same vectors, whose cosines come out multiplied; dot products have nothing to multiply."""
        assert self.inverse is not None
        return Side(self.values, self.inverse * gain)


class Slope(NamedTuple):
    """The gradient of a block of similarities, factor · values."""

    values: Tensor  # (b, n)
    factor: Tensor  # (b,)


class Gradient(NamedTuple):
    """What flows back to one set of vectors; filled in place."""

    values: Tensor  # (n, D)
    shrink: Tensor | None  # (K, n) what the division of each prefix by its norm takes off, times its norm²

    def settle(self, side: Side, dims: Sequence[int]) -> None:
        """Add the share of the norms: each prefix of a vector, times its factor."""
        if self.shrink is None or side.inverse is None:
            return
        factors = self.shrink * side.inverse.square()  # (K, n)
        total = factors.flip(0).cumsum(0).flip(0)  # (K, n) over the prefixes that hold a segment
        for place, (begin, end) in enumerate(segments(dims)):
            self.values[:, begin:end].addcmul_(side.values[:, begin:end], total[place, :, None])


def side(values: Tensor, dims: Sequence[int], similarity: Similarity) -> Side:
    """(n, D) vectors and the inverse norms of their prefixes `dims` (ascending)."""
    if similarity == "dot":
        return Side(values, None)
    squares = [values[:, begin:end].square().sum(1) for begin, end in segments(dims)]
    norms = torch.stack(squares).cumsum(0).sqrt()  # (K, n)
    return Side(values, norms.clamp(min=SMALLEST_NORM).reciprocal())


def empty_gradient(of: Side) -> Gradient:
    """Zeros to add gradients to."""
    shrink = None if of.inverse is None else of.inverse.new_zeros(of.inverse.shape)
    return Gradient(torch.zeros_like(of.values), shrink)


def forward(left: Side, right: Side, dims: Sequence[int]) -> Iterator[Tensor]:
    """Similarities (b, n) at each of `dims`, ascending, each a tensor of its own."""
    running: Tensor | None = None
    for place, (begin, end) in enumerate(segments(dims)):
        x, y = left.values[:, begin:end], right.values[:, begin:end].T
        running = x @ y if running is None else running.addmm_(x, y)  # (b, n)
        if left.inverse is None or right.inverse is None:
            yield running.clone() if end < dims[-1] else running
        else:
            yield (running * right.inverse[place]).mul_(left.inverse[place, :, None])


def backward(
    slopes: Sequence[Slope | None],
    scores: Sequence[Tensor],
    left: Side,
    right: Side,
    dims: Sequence[int],
    left_gradient: Gradient,
    right_gradient: Gradient,
) -> None:
    """Add what the slopes of the scores bring to both sides; None is a slope of zero.

    The gradient objects hold the rows of `left` and `right`; `Gradient.settle` completes them at the end.
    """
    raw = [
        None
        if slope is None
        else through_norms(slope, score, left, right, place, left_gradient, right_gradient)
        for place, (slope, score) in enumerate(zip(slopes, scores, strict=True))
    ]
    through_products(raw, left, right, dims, left_gradient, right_gradient)


def through_norms(
    slope: Slope,
    score: Tensor,
    left: Side,
    right: Side,
    place: int,
    left_gradient: Gradient,
    right_gradient: Gradient,
    scratch: Tensor | None = None,
) -> Tensor:
    """The slope of the dot products of prefix `place`, (b, n); the share of the norms is noted.

    `scratch` (b, n) is overwritten, and may be the score.
    """
    if left.inverse is None or right.inverse is None:
        return slope.values * slope.factor[:, None]
    assert left_gradient.shrink is not None
    assert right_gradient.shrink is not None
    share = torch.mul(slope.values, score, out=scratch)
    left_gradient.shrink[place] -= share.sum(1) * slope.factor
    right_gradient.shrink[place] -= slope.factor @ share
    scaled = slope.values * (slope.factor * left.inverse[place])[:, None]
    return scaled.mul_(right.inverse[place])


def through_products(
    raw: Sequence[Tensor | None],
    left: Side,
    right: Side,
    dims: Sequence[int],
    left_gradient: Gradient,
    right_gradient: Gradient,
) -> None:
    """Add the slopes of the dot products of every prefix to both sides; the tensors are used up."""
    running: Tensor | None = None  # (b, n) of the prefixes that hold this segment
    for slope, (begin, end) in reversed(list(zip(raw, segments(dims), strict=True))):
        if slope is not None:
            running = slope if running is None else running.add_(slope)
        if running is not None:
            left_gradient.values[:, begin:end].addmm_(running, right.values[:, begin:end])
            right_gradient.values[:, begin:end].addmm_(running.T, left.values[:, begin:end])


def segments(dims: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(begin, end) of the coordinates that each prefix adds."""
    begin = 0
    for end in dims:
        yield begin, end
        begin = end
