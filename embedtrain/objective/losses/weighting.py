"""Which queries count more, as training goes on.

`Progressive` is our own formula. PEG (Wu et al. 2023, arXiv:2311.11691) describes training that shifts its
attention between easy and hard samples but gives no formula, so nothing here claims to be it.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from embedtrain.objective.schedule import Linear, Schedule, at
from embedtrain.types import InputError

LEAST = 1e-3  # of 1 - p: a query that is solved would otherwise weigh without bound under a negative power


class Weighting(Protocol):
    """Losses of the queries to what each counts, of mean 1."""

    def __call__(self, losses: Tensor, step: int) -> Tensor:
        """(B,) detached losses of the largest sub-model to (B,) factors."""
        ...


class Progressive:
    """w_i ∝ (1 - p_i)^γ(t), of mean 1, with p_i = exp(-loss_i) the probability of the positive.

    γ < 0 favours the queries that are already solved, γ > 0 those that are not, 0 is no weighting. 1 - p is
    held above 0.001.
    """

    def __init__(
        self, power: float | Schedule | None = None, start: float = -0.5, end: float = 1.0, steps: int = 1000
    ) -> None:
        """Set γ: a schedule or number, or a line from `start` to `end` over `steps` optimiser steps.

        Raises:
            InputError: when `power` is neither, or `steps` is not at least 1.
        """
        if power is not None and not isinstance(power, int | float | Schedule):
            raise InputError(f"power must be a number or a schedule, got {power!r}")
        self.power: float | Schedule = Linear(start, end, steps) if power is None else power

    def __call__(self, losses: Tensor, step: int) -> Tensor:
        """(B,) factors of mean 1."""
        unsolved = (-losses).expm1().neg().clamp(min=LEAST)  # (B,) 1 - p
        raw = unsolved ** at(self.power, step)
        return raw / raw.mean()
