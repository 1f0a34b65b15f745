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


def some_weight(**weights: float | Schedule) -> None:
    """Schedules or finite numbers of 0 or more, not all of them 0."""
    for setting, value in weights.items():
        not_negative(setting, value)
    if all(value == 0 for value in weights.values()):
        *others, last = weights
        raise InputError(f"{', '.join(others)} and {last} are 0, nothing trains: raise one")


def one_of(setting: str, value: str, words: tuple[str, ...]) -> None:
    """One of a few words."""
    if value not in words:
        raise InputError(f"{setting} must be one of {list(words)}, got {value!r}")
