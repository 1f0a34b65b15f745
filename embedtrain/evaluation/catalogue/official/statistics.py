"""Whether the data of an official task are the published ones, by the statistics that mteb ships.

mteb carries, for most tasks, rows, characters and distinct texts of each split; the same sums over the data
at hand say whether a score may be compared with a published one. What differs is warned of with both numbers.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from embedtrain.evaluation.mteb_private import silenced, statistics_of

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

logger = logging.getLogger(__name__)

MOST_ROWS = 2_000_000  # beyond, reading every text once more costs minutes and the set of them gigabytes
SHOWN = 4


def warn_of_differences(task: AbsTask) -> None:
    """Compares a loaded task with mteb's statistics and warns of each of its subsets that differ."""
    shipped = task.metadata.descriptive_stats
    if not shipped:
        logger.info("%s: mteb ships no statistics to compare the data with", task.metadata.name)
        return
    for where, expected, split, subset in _parts(task, shipped):
        if (expected.get("num_samples") or 0) > MOST_ROWS:
            logger.info("%s: too large to be compared with mteb's statistics", where)
            continue
        try:
            with silenced(), contextlib.redirect_stderr(io.StringIO()):  # mteb shows a bar for every column
                found = statistics_of(task, split, subset)
        except Exception as error:
            logger.warning("%s cannot be compared with mteb's statistics (%s)", where, error)
            continue
        if differing := differences(found, expected):
            listed = ", ".join(differing[:SHOWN])
            listed += f" and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
            logger.warning("%s is not quite the published data, so its scores may differ: %s", where, listed)


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """'num_samples is 5000, published 9927' for every number that differs by more than rounding."""
    ours = dict(_numbers(found))
    return [
        f"{name} is {_short(ours[name])}, published {_short(number)}"
        for name, number in _numbers(expected)
        if name in ours and abs(ours[name] - number) > 1e-6 * max(abs(number), 1)
    ]


def _parts(
    task: AbsTask, shipped: Mapping[str, Any]
) -> Iterator[tuple[str, Mapping[str, Any], str, str | None]]:
    """(name, mteb's statistics, split, subset) of what is evaluated or learnt from."""
    learnt = getattr(task, "train_split", None)
    for split in dict.fromkeys((*task.eval_splits, *([learnt] if learnt else []))):
        if split not in shipped:
            continue
        if not task.metadata.is_multilingual:
            yield f"{task.metadata.name} {split}", shipped[split], split, None
            continue
        by_subset = shipped[split].get("hf_subset_descriptive_stats", {})
        for subset in task.hf_subsets:
            if subset in by_subset:
                yield f"{task.metadata.name} {subset} {split}", by_subset[subset], split, subset


def _numbers(statistics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of nested statistics by dotted name, without averages and how often each label occurs."""
    for key, value in statistics.items():
        if key.startswith(("average", "avg")):
            continue
        if isinstance(value, Mapping) and key not in ("labels", "hf_subset_descriptive_stats"):
            yield from _numbers(value, f"{prefix}{key}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield prefix + key, float(value)


def _short(number: float) -> str:
    return f"{number:.0f}" if number == int(number) else f"{number:.6g}"
