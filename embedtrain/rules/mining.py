"""Which of a query's nearest documents must not be its negatives.

The rules are those of NV-Retriever (Moreira et al. 2024, 2407.15831).

A rule sees candidates that are none of the query's labelled positives, by falling score, and a reference: the
score of a labelled positive. Scores are those of the teacher, or of the cross-encoder where there is one.

Letters: b queries, C candidates.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from embedtrain.types import InputError

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Candidates(NamedTuple):
    """What is known of some queries and their candidates."""

    scores: Floats  # (b, C)
    reference: Floats  # (b,) score of the positive that rules compare with
    ranks: NDArray[np.int64]  # (b, C) 0-based place in the teacher's ranking before any rule


class Rule(Protocol):
    """Takes candidates out."""

    name: str

    def removes(self, seen: Candidates) -> Mask:
        """(b, C) bool, True where a candidate must go."""
        ...


class PercPos:
    """TopK-PercPos: a candidate stays if s < p s⁺; 0.95 was the best of NV-Retriever.

    For s⁺ < 0 the published formula lets through candidates above the positive, since p s⁺ > s⁺ there;
    sentence-transformers' `relative_margin=1-p` takes s⁺ - (1-p)|s⁺| instead. For s⁺ >= 0 both are one, but
    that s = p s⁺ goes here and stays there.
    """

    def __init__(self, perc_pos: float = 0.95, *, name: str = "perc_pos") -> None:
        """Set p, in (0, 1]. Raises InputError outside."""
        if not 0.0 < perc_pos <= 1.0:
            raise InputError(f"perc_pos must be above 0 and at most 1, got {perc_pos}")
        self.perc_pos, self.name = perc_pos, name

    def removes(self, seen: Candidates) -> Mask:
        """As `Rule.removes`."""
        return ~(seen.scores < self.perc_pos * seen.reference[:, None])


class MarginPos:
    """TopK-MarginPos: a candidate stays if s < s⁺ - margin; 0.05 was the best margin of NV-Retriever."""

    def __init__(self, margin: float = 0.05, *, name: str = "margin_pos") -> None:
        """Set the margin; a negative one tolerates. Raises InputError unless it is finite."""
        self.margin, self.name = _finite("margin", margin), name

    def removes(self, seen: Candidates) -> Mask:
        """As `Rule.removes`."""
        return ~(seen.scores < seen.reference[:, None] - self.margin)


class Abs:
    """TopK-Abs: a candidate stays if s < most, whatever its query's positive."""

    def __init__(self, most: float = 0.7, *, name: str = "abs") -> None:
        """Set the bound. Raises InputError unless it is finite."""
        self.most, self.name = _finite("most", most), name

    def removes(self, seen: Candidates) -> Mask:
        """As `Rule.removes`."""
        return ~(seen.scores < self.most)


class MinScore:
    """A candidate stays if s >= least: what is far from the query teaches little."""

    def __init__(self, least: float, *, name: str = "min_score") -> None:
        """Set the bound. Raises InputError unless it is finite."""
        self.least, self.name = _finite("least", least), name

    def removes(self, seen: Candidates) -> Mask:
        """As `Rule.removes`."""
        return ~(seen.scores >= self.least)


class SkipTop:
    """The first so many ranks go (shifted top-k), counted before any other rule has taken one out.

    sentence-transformers' `range_min` counts after the others, so there it skips the first valid ones.
    """

    def __init__(self, first: int = 10, *, name: str = "skip_top") -> None:
        """Set how many, 0 or more. Raises InputError below."""
        if first < 0:
            raise InputError(f"first must be 0 or more, got {first}")
        self.first, self.name = first, name

    def removes(self, seen: Candidates) -> Mask:
        """As `Rule.removes`."""
        return seen.ranks < self.first


def _finite(name: str, value: float) -> float:
    if not math.isfinite(value):
        raise InputError(f"{name} must be a finite number, got {value}")
    return float(value)
