"""Tests of significance for a page: what runs did not test themselves, where they keep items."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from embedtrain.evaluation.comparing.compare import Judgement, Row
from embedtrain.evaluation.comparing.every_pair import Against, every_pair
from embedtrain.evaluation.comparing.runs import Run, at_step
from embedtrain.evaluation.comparing.statistics import Settings as Resampling
from embedtrain.reporting.page.facts import Facts
from embedtrain.types import Cell, InputError

MOST = 16  # runs of which every pair is compared; of more each against the best


def tests_of(runs: Sequence[Facts], resamples: int) -> Facts:
    """What a page knows of chance: `before`, a list of rows a run, `pairs` of runs and `notes` on them.

    The largest float32 cell that both sides have is compared on the tasks that both have. p is corrected by
    Holm over the tasks of a comparison, and of the means over tasks over all pairs of runs.
    """
    judgement = Judgement(Resampling(resamples))
    missing: dict[int, str] = {}
    before = [_before(run, judgement, missing, place) for place, run in enumerate(runs)]
    measured: dict[int, Run] = {}
    for place, run in enumerate(runs):
        if run["after"] is not None:
            try:
                measured[place] = at_step(Path(run["folder"]), run["after"], run["name"])
            except InputError as error:  # of several models: it has no place of its own in the page
                missing[place] = str(error)
    places, note = list(measured), ""
    pairs = list(combinations(range(len(places)), 2))
    if len(places) > MOST:
        best = max(range(len(places)), key=lambda number: _mean(measured[places[number]]))
        pairs = [(best, number) for number in range(len(places)) if number != best]
        name = runs[places[best]]["name"]
        note = f"Of more than {MOST} runs each is held against {name}, which has the best mean."
    found = every_pair(list(measured.values()), pairs, judgement)
    return {
        "before": before,
        "pairs": [_against(one, places) for one in found],
        "missing": missing,
        "note": note,
    }


def _before(run: Facts, judgement: Judgement, missing: dict[int, str], place: int) -> list[Facts]:
    """Rows of before against after, where the run's own verdict has none."""
    if run["verdict"] is not None or run["before"] is None or run["after"] is None:
        return []
    folder = Path(run["folder"])
    try:
        sides = [at_step(folder, step) for step in (run["before"], run["after"])]
    except InputError as error:
        missing[place] = str(error)
        return []
    (found,) = every_pair(sides, [(0, 1)], judgement)
    if found.reason:
        missing[place] = found.reason
    return [
        {"metric": row.metric, "cell": _name(found.cell), **dict(zip(COLUMNS, _row(row), strict=True))}
        for row in found.rows
    ]


COLUMNS = ("task", "first", "second", "low", "high", "p", "verdict")


def _row(row: Row) -> list[Any]:
    """Task, both scores, the interval of the difference, corrected p, verdict; with few digits."""
    ends = (None, None) if row.found is None else (row.found.low, row.found.high)
    numbers = (row.first.score, row.second.score, *ends, row.corrected)
    return [
        row.task,
        *(None if number is None else float(f"{number:.6g}") for number in numbers),
        row.verdict,
    ]


def _against(found: Against, places: Sequence[int]) -> Facts:
    """A pair of runs, which are numbers of runs of the page."""
    mean = found.together
    return {
        "first": places[found.first],
        "second": places[found.second],
        "cell": _name(found.cell),
        "rows": [_row(row) for row in found.rows],
        "mean": None if mean is None else mean._asdict(),
        "reason": found.reason,
    }


def _name(cell: Cell | None) -> str:
    return "" if cell is None else f"L{cell.layer} · D{cell.dim}"


def _mean(run: Run) -> float:
    """Of the whole model, over tasks."""
    whole = max(run.cells, key=lambda cell: (cell.dtype == "float32", cell.layer * cell.dim), default=None)
    return -1.0 if whole is None else fmean(cells[whole].value for cells in run.scores.values())
