"""Merging that needs the ingredients alone: an average, a weighted one, a spherical one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from embedtrain.merging.weights import AnyNumber, Given, Merged, each, listed, mixed
from embedtrain.types import InputError

ALIKE = 0.9995  # cosine above which a sphere is flat, as in mergekit


class Average(AnyNumber):
    """The mean of the weights (Wortsman et al. 2022, Model soups, 2203.05482: the uniform soup)."""

    needs = frozenset[str]()

    def __call__(self, given: Given) -> Merged:
        """As `Method`."""
        count = len(given.weights)
        return Merged(mixed(given.weights, [1 / count] * count))


class Weighted:
    """A weighted mean.

    Args:
        shares: one for each run, in their order; they are divided by their sum.

    Raises:
        InputError: for a share below 0, or none above 0.
    """

    needs = frozenset[str]()

    def __init__(self, shares: Sequence[float]) -> None:
        if not shares or min(shares) < 0 or sum(shares) <= 0:
            raise InputError(f"shares must be 0 or more, and one above 0, got {list(shares)}")
        self.shares = [share / sum(shares) for share in shares]

    def check(self, runs: int) -> None:
        """As `Method.check`."""
        if len(self.shares) != runs:
            raise InputError(f"shares has {len(self.shares)} numbers for {runs} runs")

    def __call__(self, given: Given) -> Merged:
        """As `Method`."""
        self.check(len(given.weights))
        return Merged(mixed(given.weights, self.shares), (listed("shares", self.shares),))


class Slerp:
    """Each tensor on the great circle between those of two runs, as mergekit does it.

    Tensors whose cosine is above 0.9995 are averaged in a straight line.

    Args:
        t: 0 is the first run, 1 the second.

    Raises:
        InputError: for t outside 0..1.
    """

    needs = frozenset[str]()

    def __init__(self, t: float = 0.5) -> None:
        if not 0 <= t <= 1:
            raise InputError(f"t must be in 0..1, got {t}")
        self.t = t

    def check(self, runs: int) -> None:
        """As `Method.check`."""
        if runs != 2:
            raise InputError(f"slerp merges two runs, got {runs}: merge its result with the next")

    def __call__(self, given: Given) -> Merged:
        """As `Method`."""
        self.check(len(given.weights))
        return Merged(each(self._between, *given.weights))

    def _between(self, first: Tensor, second: Tensor) -> Tensor:
        norms = float(first.norm()) * float(second.norm())
        cosine = float((first * second).sum()) / norms if norms else 1.0
        if abs(cosine) > ALIKE:
            return first * (1 - self.t) + second * self.t
        angle = math.acos(cosine)
        return (first * math.sin((1 - self.t) * angle) + second * math.sin(self.t * angle)) / math.sin(angle)


def norm(values: Sequence[Tensor]) -> float:
    """The length of a vector in parts."""
    return math.sqrt(sum(float(value.double().square().sum()) for value in values))


def cosine(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    """Of two vectors in parts; 1 where one is 0."""
    both = norm(first) * norm(second)
    dot = sum(float(torch.sum(a.double() * b.double())) for a, b in zip(first, second, strict=True))
    return max(-1.0, min(1.0, dot / both)) if both else 1.0
