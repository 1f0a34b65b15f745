"""Numbers that change in training: functions of the optimiser step, so ranks and resumed runs agree.

A setting declared `float | Schedule` (a temperature, a weight, a margin) takes a number or one of these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from embedtrain.types import InputError


@runtime_checkable
class Schedule(Protocol):
    """A number for every step."""

    def __call__(self, step: int) -> float:
        """The value at optimiser step `step`, counted from 0."""
        ...


class Linear:
    """From `start` to `end` in a straight line over `steps` steps from step `begin` on; constant outside."""

    def __init__(self, start: float, end: float, steps: int, begin: int = 0) -> None:
        """Set both ends. Raises InputError unless steps >= 1, begin >= 0 and the values are finite."""
        self.start, self.end = _finite("start", start), _finite("end", end)
        self.steps, self.begin = _count("steps", steps, 1), _count("begin", begin, 0)

    def __call__(self, step: int) -> float:
        """The value at `step`."""
        return self.start + (self.end - self.start) * self._done(step)

    def _done(self, step: int) -> float:
        return min(max((step - self.begin) / self.steps, 0.0), 1.0)


class Cosine(Linear):
    """From `start` to `end` along half a cosine, flat at both ends; otherwise as `Linear`."""

    def __call__(self, step: int) -> float:
        """The value at `step`."""
        return self.end + (self.start - self.end) * 0.5 * (1 + math.cos(math.pi * self._done(step)))


class Stairs:
    """A value from each named step on: `{0: 1.0, 1000: 0.5}` is 1 before step 1000 and 0.5 from there."""

    def __init__(self, values: Mapping[int, float]) -> None:
        """Set the stairs. Raises InputError unless one begins at step 0 and all are finite."""
        stairs = sorted(
            (_count("values", int(step), 0), _finite("values", value)) for step, value in values.items()
        )
        if not stairs or stairs[0][0] != 0:
            raise InputError(
                f"values must have an entry for step 0, got steps {[step for step, _ in stairs]}"
            )
        self.stairs = tuple(stairs)

    def __call__(self, step: int) -> float:
        """The value at `step`."""
        return next(value for begin, value in reversed(self.stairs) if begin <= step)


def at(value: float | Schedule, step: int) -> float:
    """A number as it is; a schedule's value at `step`."""
    return value(step) if isinstance(value, Schedule) else value


def inverse(temperature: float | Schedule, step: int) -> float:
    """1 / temperature at `step`, what similarities are multiplied by.

    Raises:
        InputError: if a schedule gives a temperature that is not above 0.
    """
    value = at(temperature, step)
    if not value > 0:
        raise InputError(f"temperature must be above 0 (0.05 is usual), got {value} at step {step}")
    return 1 / value


def _finite(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{name} must be a finite number, got {value!r}")
    return float(value)


def _count(name: str, value: int, lowest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
        raise InputError(f"{name} must be a whole number of at least {lowest}, got {value!r}")
    return value
