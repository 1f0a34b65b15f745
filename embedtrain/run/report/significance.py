"""Tests of significance for a page: what runs did not test themselves, where they keep items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from embedtrain.evaluation.comparing.compare import Judgement, Row, compare_runs
from embedtrain.evaluation.comparing.runs import read_run
from embedtrain.evaluation.comparing.statistics import Settings as Resampling
from embedtrain.report.page.facts import Facts
from embedtrain.types import Cell, InputError


def add_tests(runs: Sequence[Facts], resamples: int) -> None:
    """Put rows into `tests` of each run: before against after, and the first run against it.

    The largest float32 cell that both sides have is compared on the tasks that both have, p corrected over
    these. Why there are none is put under `missing`.
    """
    judgement = Judgement(Resampling(resamples))
    first = next((run for run in runs if run["after"] is not None), None)
    for run in runs:
        folder, found, reasons = run["folder"], [], []
        pairs = []
        if run["verdict"] is None and run["before"] is not None and run["after"] is not None:
            pairs.append(("before → after", f"{folder}@{run['before']}", f"{folder}@{run['after']}"))
        if first is not None and first["folder"] != folder and run["after"] is not None:
            what = f"{first['name']} → {run['name']}"
            pairs.append((what, f"{first['folder']}@{first['after']}", f"{folder}@{run['after']}"))
        for what, one, other in pairs:
            try:
                found += [_plain(what, row) for row in _compared(one, other, judgement)]
            except InputError as error:
                reasons.append(str(error))
        run["tests"] = found
        if reasons:
            run["missing"]["tests"] = " ".join(reasons)


def _compared(first: str, second: str, judgement: Judgement) -> list[Row]:
    one, other = read_run(first), read_run(second)
    common = [key for key in one.scores if key in other.scores]
    if not common:
        raise InputError(f"{first} and {second} have no task in common.")
    one, other = (run._replace(scores={key: run.scores[key] for key in common}) for run in (one, other))
    cells = [cell for cell in one.cells & other.cells if cell.dtype == "float32"]
    if not cells:
        raise InputError(f"{first} and {second} have no cell in common.")
    whole = max(cells, key=lambda cell: (cell.layer * cell.dim, cell.layer))
    return compare_runs(one, [other], [(whole, whole)], judgement)


def _plain(what: str, row: Row) -> dict[str, Any]:
    cell: Cell = row.second.cell
    found = row.found
    return {
        "what": what,
        "task": row.task,
        "metric": row.metric,
        "cell": f"L{cell.layer} · D{cell.dim}",
        "first": row.first.score,
        "second": row.second.score,
        "low": None if found is None else found.low,
        "high": None if found is None else found.high,
        "p": row.corrected,
        "verdict": row.verdict,
    }
