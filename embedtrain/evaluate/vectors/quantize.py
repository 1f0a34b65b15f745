"""Vectors as a store would keep them: eight bits a coordinate, or one. Definitions of sentence-transformers.

Letters: M vectors, d coordinates.
"""

from __future__ import annotations

import torch
from torch import Tensor

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
    """What is left of vectors (M, d) kept as int8."""
    return from_int8(int8(vectors, ranges), ranges)


def signs(vectors: Tensor) -> Tensor:
    """+1 where a coordinate is above 0 and -1 elsewhere, (M, d): the cosine of two is 1 - 2 Hamming / d."""
    return torch.where(vectors > 0, 1.0, -1.0)


def _steps(ranges: Tensor) -> Tensor:
    steps = (ranges[1] - ranges[0]) / STEPS
    return torch.where(steps == 0, torch.ones_like(steps), steps)
