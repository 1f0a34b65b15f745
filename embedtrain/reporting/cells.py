"""Score rows as one number per cell (layer, dim, dtype): what tables and pictures show."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from embedtrain.files.scores import main_scores
from embedtrain.types import DTYPES, Cell, Dtype, InputError, Score

Cells = Mapping[Cell, float]


class Means(NamedTuple):
    """The mean before and after, over the cells that have both."""

    of: int
    before: float
    after: float


def cells(scores: Sequence[Score], metric: str | None = None) -> dict[Cell, float]:
    """Each cell's mean score over tasks and splits, x 100, by default of each task's main metric.

    Raises:
        InputError: if no row has the metric, or if the cells were not all measured on the same tasks,
            whose means could not be compared.
    """
    chosen = _chosen(scores, metric)
    if scores and not chosen:
        known = ", ".join(sorted({score.metric for score in scores}))
        raise InputError(f"no score has the metric {metric!r}; there are {known}")
    by_cell: dict[Cell, dict[tuple[str, str], float]] = {}
    for score in chosen:
        by_cell.setdefault(score.cell, {})[score.task, score.split] = score.value
    tasks = {frozenset(values) for values in by_cell.values()}
    if len(tasks) > 1:
        raise InputError(
            "the sub-models were not measured on the same tasks, so their means do not compare; "
            "evaluate the missing ones or show one task"
        )
    return {cell: 100 * fmean(values.values()) for cell, values in sorted(by_cell.items())}


def paired(
    before: Sequence[Score], after: Sequence[Score], metric: str | None = None
) -> tuple[dict[Cell, float], dict[Cell, float]]:
    """The cells of both lists, over the tasks that both have; an empty list restricts nothing."""
    if before and after:
        both = {score[2:4] for score in before} & {score[2:4] for score in after}
        if not both:
            raise InputError("the scores before and after have no task and split in common")
        before = [score for score in before if score[2:4] in both]
        after = [score for score in after if score[2:4] in both]
    return cells(before, metric), cells(after, metric)


def name_of_metric(scores: Sequence[Score], metric: str | None = None) -> str:
    """What the numbers are, for a title: "mine · cosine_spearman × 100", "mean of 3 tasks × 100"."""
    shown = _chosen(scores, metric)
    tasks = sorted({score.task for score in shown})
    metrics = sorted({score.metric for score in shown})
    place = tasks[0] if len(tasks) == 1 else f"mean of {len(tasks)} tasks"
    return f"{place} · {metrics[0]} × 100" if len(metrics) == 1 else f"{place} × 100"


def means(before: Cells, after: Cells, chosen: Iterable[Cell]) -> Means | None:
    """The two means over those of `chosen` that have both numbers; None where there are none."""
    both = [cell for cell in chosen if cell in before and cell in after]
    if not both:
        return None
    return Means(len(both), fmean(before[cell] for cell in both), fmean(after[cell] for cell in both))


def dtypes_of(shown: Collection[Cell]) -> list[Dtype]:
    """The dtypes of these cells, the largest vectors first."""
    return [dtype for dtype in DTYPES if any(cell.dtype == dtype for cell in shown)]


def _chosen(scores: Sequence[Score], metric: str | None) -> list[Score]:
    rows = [score for score in scores if score.dtype in DTYPES]  # others are of funnels, which a grid has not
    return main_scores(rows) if metric is None else [score for score in rows if score.metric == metric]
