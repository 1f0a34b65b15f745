"""What `embedtrain-compare` writes, as plain values, from its config."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from embedtrain.evaluation.comparing.compare import (
    Judgement,
    OverTasks,
    Pairs,
    Row,
    Side,
    Smallest,
    compare_runs,
    compare_seeds,
    over_tasks,
    smallest_cells,
)
from embedtrain.evaluation.comparing.runs import Run, cells_of, read_run, read_seeds, same_tasks
from embedtrain.evaluation.comparing.statistics import Settings as Resampling
from embedtrain.evaluation.comparing.subset import select_subset
from embedtrain.settings.commands import CompareSettings
from embedtrain.settings.compose import effective
from embedtrain.types import Cell, InputError


def comparison_of(settings: CompareSettings) -> dict[str, Any]:
    """Rows, Wilcoxon over tasks and, of one run, the smallest cut of each task.

    Raises:
        InputError: a setting out of range, or what cannot be compared.
    """
    judgement, one_run = _judgement(settings), len(settings.runs) == 1
    if settings.seeds:
        seeded = [
            {seed: run.keep(settings.tasks) for seed, run in read_seeds(text, settings.seeds).items()}
            for text in settings.runs
        ]
        pairs = _pairs([run for runs in seeded for run in runs.values()], settings.cells, one_run=one_run)
        rows = compare_seeds(seeded[0], seeded[:1] if one_run else seeded[1:], pairs, judgement)
    else:
        runs = [read_run(text).keep(settings.tasks) for text in settings.runs]
        pairs = _pairs(runs, settings.cells, one_run=one_run)
        rows = compare_runs(runs[0], runs[:1] if one_run else runs[1:], pairs, judgement)
    return {
        "settings": effective(settings),
        "rows": [_row(row) for row in rows],
        "over_tasks": [_over_tasks(row) for row in over_tasks(rows, judgement)],
        "smallest": [_smallest(row) for row in smallest_cells(rows)] if one_run else [],
    }


def subset_of(settings: CompareSettings) -> dict[str, Any]:
    """The tasks that rank the cells of all runs as all tasks do.

    Raises:
        InputError: too few cells, tasks that not all runs have, a floor out of range.
    """
    runs = [read_run(text).keep(settings.tasks) for text in settings.runs]
    keys = same_tasks(runs)
    models = [(run, cell) for run in runs for cell in sorted(run.cells)]
    if settings.cells is not None:
        chosen = set(cells_of(settings.cells))
        models = [(run, cell) for run, cell in models if cell in chosen]
    table = np.array([[run.scores[key][cell].value for key in keys] for run, cell in models])
    names = [
        task if sum(task == other for other, _ in keys) == 1 else f"{task} ({split})" for task, split in keys
    ]
    found = select_subset(table.reshape(len(models), len(keys)), names, settings.floor)
    subset = {**found._asdict(), "steps": [step._asdict() for step in found.steps], "models": len(models)}
    return {"settings": effective(settings), "subset": subset}


def _judgement(settings: CompareSettings) -> Judgement:
    if not settings.runs:
        raise InputError("runs names no folder; give one or more")
    resampling = Resampling(settings.resamples, 1 - settings.alpha, settings.interval, settings.seed)
    return Judgement(resampling, settings.alpha, settings.correction, settings.metric)


def _pairs(runs: Sequence[Run], wanted: Sequence[Any] | None, *, one_run: bool) -> Pairs:
    """The first cell against each other one of a run, or each cell against itself in another run."""
    same_tasks(runs)
    cells = sorted(set.intersection(*(run.cells for run in runs))) if wanted is None else cells_of(wanted)
    if not cells:
        listed = "; ".join(f"{run.name}: {', '.join(map(str, sorted(run.cells)))}" for run in runs)
        raise InputError(f"the runs have no cell in common ({listed}); evaluate them at the same ones")
    if not one_run:
        return [(cell, cell) for cell in cells]
    first = cells[0] if wanted is not None else max(cells, key=_largest)
    others = [cell for cell in cells if cell != first]
    if not others:
        raise InputError(
            f"one run has only the cell {first} to compare; give another run, or evaluate more cells"
        )
    return [(first, cell) for cell in others]


def _largest(cell: Cell) -> tuple[bool, int]:
    return cell.dtype == "float32", cell.layer * cell.dim


def _row(row: Row) -> dict[str, Any]:
    names = ("low", "high", "p", "effect", "effect_name", "test", "n")
    found = {name: None for name in names} if row.found is None else row.found._asdict()
    return {
        "task": row.task,
        "split": row.split,
        "metric": row.metric,
        "first": _side(row.first),
        "second": _side(row.second),
        "difference": row.difference,
        **{name: found[name] for name in names},
        "corrected": row.corrected,
        "verdict": row.verdict,
    }


def _side(side: Side) -> dict[str, Any]:
    seeds = None if side.seeds is None else side.seeds._asdict()
    return {**side._asdict(), **side.cell._asdict(), "cell": str(side.cell), "seeds": seeds}


def _over_tasks(row: OverTasks) -> dict[str, Any]:
    signed = row.wilcoxon
    numbers = {
        "not_zero": signed.n,
        "statistic": signed.statistic,
        "p": signed.p,
        "smallest_p": signed.smallest,
    }
    return {name: value for name, value in row._asdict().items() if name != "wilcoxon"} | numbers


def _smallest(row: Smallest) -> dict[str, Any]:
    return {**row._asdict(), "cell": None if row.cell is None else str(row.cell)}
