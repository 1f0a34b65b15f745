"""Checks that settings of losses share: each raises InputError naming the setting and what would do."""

from __future__ import annotations

import math
from typing import TypeVar

from embedtrain.objective.schedule import Schedule
from embedtrain.types import InputError

Number = TypeVar("Number", bound="float | Schedule")


def above_zero(setting: str, value: Number, usual: float) -> Number:
    """A schedule, or a finite number above 0."""
    if not isinstance(value, Schedule) and not (value > 0 and math.isfinite(value)):
        raise InputError(f"{setting} must be above 0 ({usual:g} is usual), got {value}")
    return value


def not_negative(setting: str, value: Number) -> Number:
    """A schedule, or a finite number of 0 or more."""
    if not isinstance(value, Schedule) and not (value >= 0 and math.isfinite(value)):
        raise InputError(f"{setting} must be 0 or more, got {value}")
    return value


def one_of(setting: str, value: str, words: tuple[str, ...]) -> None:
    """One of a few words."""
    if value not in words:
        raise InputError(f"{setting} must be one of {list(words)}, got {value!r}")
