"""Tests of significance for a page: what runs did not test themselves, where they keep items."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from embedtrain.evaluation.comparing.compare import Judgement, Row, compare_runs
from embedtrain.evaluation.comparing.runs import Run, at_step, at_whole
from embedtrain.evaluation.comparing.statistics import Settings as Resampling
from embedtrain.reporting.page.facts import Facts
from embedtrain.types import Cell, InputError


def add_tests(runs: Sequence[Facts], resamples: int) -> None:
    """Put rows into `tests` of each run: before against after, and the first run against each other.

    The largest float32 cell that both sides have is compared on the tasks that both have, p corrected over
    these. Why there are none is put under `missing`.
    """
    judgement, read = Judgement(Resampling(resamples)), cache(at_step)  # each folder once

    def add(what: str, where: Sequence[Facts], one: tuple[Path, int], other: tuple[Path, int]) -> None:
        try:
            rows = [_plain(what, row) for row in _compared(read(*one), read(*other), judgement)]
        except InputError as error:
            for run in where:
                run["missing"]["tests"] = str(error)
            return
        for run in where:
            run["tests"] += rows

    measured = [run for run in runs if run["after"] is not None]
    for run in measured:
        folder, after, first = Path(run["folder"]), run["after"], measured[0]
        if run["verdict"] is None and run["before"] is not None:
            add("before → after", [run], (folder, run["before"]), (folder, after))
        if first["folder"] != run["folder"]:
            start = Path(first["folder"]), first["after"]
            add(f"{first['name']} → {run['name']}", [first, run], start, (folder, after))


def _compared(one: Run, other: Run, judgement: Judgement) -> list[Row]:
    one, other, whole = at_whole(one, other)
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
