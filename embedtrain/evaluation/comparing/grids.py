"""The mean of a whole grid of cells, compared: items are drawn once for all cells of a task.

Letters: R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from embedtrain.evaluation.comparing.compare import items_of
from embedtrain.evaluation.comparing.resampling import drawn_counts
from embedtrain.evaluation.comparing.runs import Run, TaskSplit, same_tasks
from embedtrain.evaluation.comparing.statistics import Settings, bootstrap_p, percentile_interval
from embedtrain.evaluation.per_item.stored import paired, read_items
from embedtrain.evaluation.per_item.weighted import Floats, Sample
from embedtrain.types import Cell, InputError


class GridComparison(NamedTuple):
    """The second run against the first, means over cells, then over tasks."""

    first: float
    second: float
    low: float  # interval of the difference
    high: float
    p: float  # two-sided, by the bootstrap, not corrected

    @property
    def difference(self) -> float:
        """Second - first, in the units of the scores."""
        return self.second - self.first


def compare_grids(
    first: Run,
    second: Run,
    cells: Sequence[Cell],
    settings: Settings = Settings(),  # noqa: B008 (a NamedTuple is constant)
) -> GridComparison:
    """The mean over all cells and tasks, its paired bootstrap interval and p; tasks are not drawn.

    Raises:
        InputError: other tasks or data, no items of a cell, or a task whose type keeps none.
    """
    means, draws = [], []
    for key in same_tasks([first, second]):
        pairs = [_samples(key, first, second, cell) for cell in cells]
        means.append([np.mean([pair[side].score() for pair in pairs]) for side in (0, 1)])
        draws.append(_drawn(pairs, settings))
    one, other = np.mean(means, axis=0)
    drawn = np.mean(draws, axis=0)
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        raise InputError(f"{first.name}: the scores of resampled items do not exist; the gold is constant")
    low, high = percentile_interval(drawn, settings.level)
    return GridComparison(float(one), float(other), low, high, bootstrap_p(drawn))


def _samples(key: TaskSplit, first: Run, second: Run, cell: Cell) -> tuple[Sample, Sample]:
    one, other = paired(*(read_items(items_of(run, key, cell)) for run in (first, second)))
    return one.sample(), other.sample()


def _drawn(pairs: Sequence[tuple[Sample, Sample]], settings: Settings) -> Floats:
    """The difference of the means over cells in each resample, (R,)."""
    found = [
        np.mean([other.under(counts) - one.under(counts) for one, other in pairs], axis=0)
        for counts in drawn_counts(pairs[0][0].part, settings.resamples, settings.seed)
    ]
    return np.concatenate(found)
