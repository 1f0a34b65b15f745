"""A few tasks that rank models as all of them do (the idea of MMTEB: Enevoldsen et al. 2025, 2502.13595).

Many tasks of a benchmark say the same. The one that the others predict best is dropped, again and again, as
long as the mean over what is left still orders the models like the mean over everything.

Letters: m models (or cells of models), t tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from embedtrain.evaluation.per_item.weighted import Floats
from embedtrain.types import InputError

_RIDGE = 0.1  # share of a standardised task's variance: few models and many tasks need some


class Step(NamedTuple):
    """One task dropped, and what the rest is then worth."""

    dropped: str
    predictability: float  # rank correlation of the task with what the other kept ones foretell
    spearman: float  # of the models' means over the rest with their means over all tasks
    kendall: float  # tau-b of the same


class Subset(NamedTuple):
    """The tasks that are enough."""

    kept: tuple[str, ...]  # in the order given
    spearman: float
    kendall: float
    steps: tuple[Step, ...]


def select_subset(scores: Floats, tasks: Sequence[str], floor: float = 0.95) -> Subset:
    """The smallest subset that greedy dropping reaches with a rank correlation of at least `floor`.

    At each step tasks are tried from the most predictable on; the first whose loss keeps the Spearman
    correlation with the full mean at `floor` or above goes. Ties go by name order of `tasks`.

    Args:
        scores: (m, t) main scores.
        tasks: t names.
        floor: least Spearman correlation, 0..1.

    Raises:
        InputError: fewer than 3 models, which any two tasks may rank alike by chance; a floor outside 0..1;
            models of the same mean on all tasks; another number of names than columns.
    """
    scores = np.asarray(scores, dtype=np.float64)
    _check(scores, tasks, floor)
    whole = scores.mean(axis=1)  # (m,)
    kept, steps = list(range(len(tasks))), []
    while len(kept) > 1:
        step = _drop(scores, whole, kept, floor)
        if step is None:
            break
        column, predictability, spearman, kendall = step
        kept.remove(column)
        steps.append(Step(tasks[column], predictability, spearman, kendall))
    spearman, kendall = _agreement(scores[:, kept].mean(axis=1), whole)
    return Subset(tuple(tasks[column] for column in kept), spearman, kendall, tuple(steps))


def predictability(scores: Floats, column: int) -> float:
    """How well the other columns foretell this one's order of the models: Spearman, -1..1.

    Each model's score is foretold by a ridge regression on the other tasks that did not see that model. A
    task on which all models are equal says nothing and counts as perfectly predictable.
    """
    target = scores[:, column]
    if np.ptp(target) == 0:
        return 1.0
    others = np.delete(scores, column, axis=1)
    spread = others.std(axis=0)
    others = (others - others.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    design = np.column_stack([np.ones(len(others)), others])
    penalty = _RIDGE * len(others) * np.eye(design.shape[1])
    penalty[0, 0] = 0.0
    hat = design @ np.linalg.solve(design.T @ design + penalty, design.T)  # (m, m)
    left = 1 - np.diag(hat)
    # what the fit without the model itself says of it; of pure noise it says a little less than nothing,
    # since leaving a high value out lowers the mean
    foretold = target - (target - hat @ target) / np.where(left > 1e-12, left, 1.0)
    return _rank_correlation(foretold, target)


def _drop(
    scores: Floats, whole: Floats, kept: Sequence[int], floor: float
) -> tuple[int, float, float, float] | None:
    columns = scores[:, kept]
    rated = [predictability(columns, place) for place in range(len(kept))]
    for place in sorted(range(len(kept)), key=lambda place: -rated[place]):
        rest = [column for column in kept if column != kept[place]]
        spearman, kendall = _agreement(scores[:, rest].mean(axis=1), whole)
        if spearman >= floor:
            return kept[place], rated[place], spearman, kendall
    return None


def _agreement(part: Floats, whole: Floats) -> tuple[float, float]:
    if np.ptp(part) == 0:
        return 0.0, 0.0
    return _rank_correlation(part, whole), float(stats.kendalltau(part, whole).statistic)


def _rank_correlation(one: Floats, other: Floats) -> float:
    if np.ptp(one) == 0:
        return 0.0
    return float(stats.spearmanr(one, other).statistic)


def _check(scores: Floats, tasks: Sequence[str], floor: float) -> None:
    if scores.ndim != 2 or scores.shape[1] != len(tasks):
        raise InputError(
            f"{len(tasks)} task names for a table of {scores.shape}; one column a task is needed"
        )
    if not 0 <= floor <= 1:
        raise InputError(f"floor must be in 0..1, got {floor}")
    if len(scores) < 3:
        raise InputError(f"choosing tasks needs at least 3 models or cells to rank, got {len(scores)}")
    if np.ptp(scores.mean(axis=1)) == 0:
        raise InputError("all models have the same mean over the tasks, so there is no ranking to keep")
