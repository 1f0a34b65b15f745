"""Vectors as an index would hold them: eight bits a coordinate, or one. Definitions of sentence-transformers.

Letters: M vectors, N documents, d coordinates.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from embedtrain.types import Dtype

STEPS = 255  # between the smallest and the largest value of a coordinate


def ranges_of(sample: Tensor) -> Tensor:
    """The smallest and the largest value of each coordinate over a calibration sample, (2, d)."""
    return torch.stack([sample.amin(dim=0), sample.amax(dim=0)])


def int8(vectors: Tensor, ranges: Tensor) -> Tensor:
    """Codes (M, d) int8: floor((x - smallest) / step) - 128, what is outside the ranges at their ends.

    A coordinate that never varied in the sample has step 1.
    """
    low, step = ranges[0], _steps(ranges)
    return (((vectors - low) / step).floor().clamp(0, STEPS) - 128).to(torch.int8)


def from_int8(codes: Tensor, ranges: Tensor) -> Tensor:
    """The values (M, d) float32 that codes stand for: the lower end of their step."""
    return (codes.double() + 128).mul(_steps(ranges)).add(ranges[0]).float()


def through_int8(vectors: Tensor, ranges: Tensor) -> Tensor:
    """What is left of vectors (M, d) once they were int8."""
    return from_int8(int8(vectors, ranges), ranges)


def signs(vectors: Tensor) -> Tensor:
    """+1 where a coordinate is above 0 and -1 elsewhere, (M, d): the cosine of two is 1 - 2 Hamming / d."""
    return torch.where(vectors > 0, 1.0, -1.0)


def cosine(left: Tensor, right: Tensor) -> Tensor:
    """(M, N) cosines of (M, d) and (N, d), on the CPU."""
    return F.normalize(left, dim=1) @ F.normalize(right, dim=1).T


def signs_cosine(left: Tensor, right: Tensor) -> Tensor:
    """`cosine` of vectors of +1 and -1: without rounding, so that equal Hamming distances stay equal."""
    return left @ right.T / left.shape[1]


class Corpus(NamedTuple):
    """Documents as an index of some dtype holds them."""

    ids: list[str]
    values: Tensor  # (N, d) float32, of which the reported similarities are made
    signs: Tensor | None = None  # (N, d) +1 and -1 that are searched first, by the signs of the query
    rescore_multiplier: int | None = None  # times top_k documents are ranked again by the float32 query

    def shortlist(self, top_k: int) -> int:
        """How many documents of a query the first search lets through."""
        return top_k * (self.rescore_multiplier or 1)


def quantized(
    ids: list[str], unit: Tensor, dtype: Dtype, rescore_multiplier: int, ranges: Tensor | None = None
) -> Corpus:
    """Documents of unit vectors (N, d) as an index of this dtype holds them.

    `ranges` (2, d) are those of int8, by default of these documents.
    """
    if dtype == "float32":
        return Corpus(ids, unit)
    if "int8" in dtype:
        values = through_int8(unit, ranges_of(unit) if ranges is None else ranges)
        if dtype == "int8":
            return Corpus(ids, values)
        return Corpus(ids, values, signs(unit), rescore_multiplier)
    return Corpus(ids, signs(unit), signs(unit), None if dtype == "binary" else rescore_multiplier)


def _steps(ranges: Tensor) -> Tensor:
    steps = (ranges[1] - ranges[0]) / STEPS
    return torch.where(steps == 0, torch.ones_like(steps), steps)
