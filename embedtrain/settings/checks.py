"""Checks that dataclasses of settings share: words that there are, and one table of ranges."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from embedtrain.types import InputError


class Range(NamedTuple):
    """The numbers that a setting may have."""

    low: float
    high: float | None = None
    ends: bool = True  # whether `low` and `high` are among them

    def __contains__(self, value: object) -> bool:
        """Whether it is a number in it; NaN is in none, nor is a word."""
        if not isinstance(value, int | float):
            return False
        if self.ends:
            return self.low <= value and (self.high is None or value <= self.high)
        return self.low < value and (self.high is None or value < self.high)

    def __str__(self) -> str:
        if self.high is None:
            return f"{self.low} or more" if self.ends else f"above {self.low}"
        return f"in {self.low}..{self.high}" if self.ends else f"between {self.low} and {self.high}"


COUNT, SHARE, POSITIVE = Range(1), Range(0, 1), Range(0, ends=False)
SEED = Range(0, 2**32 - 1)  # of numpy
# By setting, or by class and setting where a name has two meanings. Entries of lists are in the range too.
RANGES = {
    "seed": SEED,
    "batch_size": COUNT,
    "validation_fraction": Range(0, 1),
    "validation_rows": COUNT,
    "validation_limit": COUNT,
    "alpha": SHARE,
    "max_negatives": Range(0),
    "num_workers": Range(0),
    "max_epochs": COUNT,
    "max_steps": COUNT,
    "devices": COUNT,
    "num_nodes": COUNT,
    "accumulate_grad_batches": COUNT,
    "gradient_clip_val": POSITIVE,
    "val_check_interval": POSITIVE,
    "checkpoint_every_n_steps": COUNT,
    "save_total_limit": COUNT,
    "log_every_n_steps": COUNT,
    "timeout_minutes": POSITIVE,
    "layers": COUNT,
    "dims": COUNT,
    "rescore_multiplier": COUNT,
    "tolerance": SHARE,
    "max_bytes": COUNT,
    "max_ms": POSITIVE,
    "scoring_workers": COUNT,
    "store_gb": Range(0),
    "memory_gb": Range(0),
    "layer": COUNT,
    "dim": COUNT,
    "rows": Range(2),
    "batch_rows": Range(2),
    "overlap": SHARE,
    "CompareSettings.alpha": Range(0, 1, ends=False),
    "resamples": Range(100),
    "port": Range(0, 65535),
    "floor": SHARE,
    "base_share": SHARE,
    "check_rank": COUNT,
    "probe_rows": Range(2),
    "RotateSettings.rows": Range(6),
    "RotateSettings.validation_rows": Range(2),
    "RotateSettings.batch_size": Range(2),
    "RotateSettings.lr": POSITIVE,
    "epochs": COUNT,
    "reflections": Range(0),
    "probe_batch_size": Range(2),
}
FILLED = {
    "layers",
    "dims",
    "dtypes",
    "runs",
    "languages",
    "starts",
    "EvaluateSettings.tasks",
}  # lists of one or more


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Settings whose words are among those that there are, numbers in their ranges, lists not empty."""

    def __post_init__(self) -> None:
        """Raise InputError for what is not."""
        words, kind = _words(type(self)), type(self).__name__
        for name in (item.name for item in fields(self)):
            value = getattr(self, name)
            values = value if isinstance(value, list) else [] if value is None else [value]
            if value == [] and _named(kind, name, FILLED):
                raise InputError(f"{name} must hold one or more, or be left out, got []")
            key = _named(kind, name, RANGES)
            for one in values:
                if name in words and one not in words[name]:
                    raise InputError(f"{name} must be one of {', '.join(words[name])}, got {one!r}")
                if key and one not in RANGES[key]:
                    raise InputError(f"{name} must be {RANGES[key]}, got {one}")


def at_least_one(**counts: int | None) -> None:
    """Raise InputError for a number below 1; None is no number."""
    for name, count in counts.items():
        if count is not None and count not in COUNT:
            raise InputError(f"{name} must be {COUNT}, got {count}")


def _named(kind: str, name: str, table: Collection[str]) -> str | None:
    """What a table calls a setting; None where it has no entry."""
    return next((key for key in (f"{kind}.{name}", name) if key in table), None)


def _words(kind: type) -> dict[str, tuple[Any, ...]]:
    """The words of the fields that have some, of one word or a list of them."""
    words = {}
    for name, hint in get_type_hints(kind).items():
        one = get_args(hint)[0] if get_origin(hint) is list else hint
        if get_origin(one) is Literal:
            words[name] = get_args(one)
    return words
