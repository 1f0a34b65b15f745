"""Scores as a table of cells by tasks for each step: x 100, what is not measured is None."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from embedtrain.files.scores import TaskFacts, main_scores
from embedtrain.types import DTYPES, Cell, Score


def score_table(scores: Sequence[Score], tasks: Mapping[str, TaskFacts], *, trains: bool) -> dict[str, Any]:
    """`tasks`, `cells`, `steps`, and `scores`: step -> a row a cell, a column a task, means over splits.

    `before` is step 0 and `after` the last one; what `embedtrain-evaluate` measured has an `after` alone.

    Args:
        scores: of one model; those of funnels are left out.
        tasks: their types; "unknown" where a task is not here.
        trains: whether a run wrote them, whose step 0 is the untouched backbone.
    """
    main = [score for score in main_scores(scores) if score.dtype in DTYPES]
    steps = sorted({score.step for score in main})
    names = list(dict.fromkeys(score.task for score in main))
    cells = sorted({score.cell for score in main}, key=lambda cell: (DTYPES.index(cell.dtype), *cell[:2]))
    values: dict[tuple[int, Cell, str], list[float]] = {}
    for score in main:
        values.setdefault((score.step, score.cell, score.task), []).append(100 * score.value)
    metrics = {score.task: score.metric for score in main}
    has_before = trains and steps[:1] == [0]
    last = steps[-1] if steps and (steps[-1] > 0 or not trains) else None
    return {
        "tasks": [
            {"name": name, "type": tasks[name].type if name in tasks else "unknown", "metric": metrics[name]}
            for name in names
        ],
        "cells": [list(cell) for cell in cells],
        "steps": steps,
        "before": 0 if has_before else None,
        "after": last,
        "scores": {
            str(step): [[_mean(values.get((step, cell, name))) for name in names] for cell in cells]
            for step in {step for step in (0 if has_before else None, last) if step is not None}
        },
    }


def _mean(found: Sequence[float] | None) -> float | None:
    return None if found is None else round(fmean(found), 4)
