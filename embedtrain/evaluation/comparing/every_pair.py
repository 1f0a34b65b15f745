"""Every pair of runs at their largest common cell: each task, and the mean over the tasks.

What cannot be compared on a task (no items, other data) leaves the other tasks and runs as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from scipy.stats import norm

from embedtrain.evaluation.comparing.compare import (
    Judgement,
    Place,
    Row,
    items_of,
    judged,
    rows_of_task,
    side_of,
)
from embedtrain.evaluation.comparing.families import correct
from embedtrain.evaluation.comparing.runs import Run, TaskSplit, at_whole
from embedtrain.evaluation.comparing.statistics import Verdict, verdict
from embedtrain.evaluation.per_item.stored import ItemValues, paired, read_items
from embedtrain.types import Cell, InputError


class Together(NamedTuple):
    """The mean over the tasks that were tested, in the units of the scores."""

    tasks: int
    first: float
    second: float
    low: float
    high: float
    corrected: float  # p, corrected over the pairs of runs
    verdict: Verdict


class Against(NamedTuple):
    """The second run against the first; both are places in the list of runs."""

    first: int
    second: int
    cell: Cell | None  # None: they have no cell or task in common
    rows: tuple[Row, ...] = ()  # p corrected over the tasks of the pair, as `compare_runs` does
    together: Together | None = None  # None: no task could be tested
    reason: str = ""  # why a task was not


def every_pair(runs: Sequence[Run], pairs: Sequence[tuple[int, int]], judgement: Judgement) -> list[Against]:
    """A comparison a pair of places in `runs`, in the order of `pairs`."""
    cells: list[Cell | None] = [None] * len(pairs)
    rows: list[list[Row]] = [[] for _ in pairs]
    reasons, asked = [""] * len(pairs), dict[TaskSplit, list[tuple[int, tuple[Place, Place]]]]()
    for number, (one, other) in enumerate(pairs):
        try:
            _, common, cell = at_whole(runs[one], runs[other])
        except InputError as error:
            reasons[number] = str(error)
            continue
        cells[number] = cell
        for key in common.scores:
            asked.setdefault(key, []).append((number, ((runs[one], cell), (runs[other], cell))))
    for key, wanted in asked.items():
        for number, row, reason in _tested(key, wanted, judgement):
            rows[number].append(row)
            reasons[number] = reasons[number] or reason
    checked = [judged(each, judgement) for each in rows]
    means = iter(_corrected([together(each, judgement) for each in checked], judgement))
    return [
        Against(*pair, cell, tuple(each), next(means), reason)
        for pair, cell, each, reason in zip(pairs, cells, checked, reasons, strict=True)
    ]


def _tested(
    key: TaskSplit, wanted: Sequence[tuple[int, tuple[Place, Place]]], judgement: Judgement
) -> list[tuple[int, Row, str]]:
    """The rows of a task, each with its pair, and why there is no test where there is none."""
    read = cache(read_items)
    groups, reasons = _same_items(key, [place for _, pair in wanted for place in pair], read)
    found: list[tuple[int, Row, str]] = []
    for group in set(groups.values()):
        mine = [(number, pair) for number, pair in wanted if {groups.get(_name(p)) for p in pair} == {group}]
        rows = rows_of_task(key, [pair for _, pair in mine], judgement, read) if mine else []
        found += [(number, row, "") for (number, _), row in zip(mine, rows, strict=True)]
    done = {number for number, _, _ in found}
    for number, (one, other) in wanted:
        if number not in done:
            why = next((reasons[_name(p)] for p in (one, other) if _name(p) in reasons), "")
            sides = side_of(*one, key), side_of(*other, key)
            found.append((number, Row(*key, one[0].scores[key][one[1]].metric, *sides, None), why))
    return found


def _name(place: Place) -> tuple[int, Cell]:
    return id(place[0]), place[1]


def _same_items(
    key: TaskSplit, places: Sequence[Place], read: Callable[[Path], ItemValues]
) -> tuple[dict[tuple[int, Cell], int], dict[tuple[int, Cell], str]]:
    """The number of the group of places with the same items; why a place is in none, or not in the first."""
    groups: dict[tuple[int, Cell], int] = {}
    reasons: dict[tuple[int, Cell], str] = {}
    firsts: list[ItemValues] = []
    for run, cell in {_name(place): place for place in places}.values():
        name = _name((run, cell))
        try:
            mine = read(items_of(run, key, cell))
        except InputError as error:
            reasons[name] = str(error)
            continue
        for number, first in enumerate(firsts):
            try:
                paired(first, mine)
            except InputError as error:
                reasons.setdefault(name, str(error))
                continue
            groups[name] = number
            break
        else:
            groups[name] = len(firsts)
            firsts.append(mine)
    return groups, reasons


def together(rows: Sequence[Row], judgement: Judgement) -> Together | None:
    """The mean over tasks, its p not corrected: tasks are independent, so their squared errors add."""
    found = [row.found for row in rows if row.found is not None]
    if not found:
        return None
    first, second = fmean(one.first for one in found), fmean(one.second for one in found)
    difference = second - first
    if len(found) == 1:  # the test of the task itself
        ends, p = (found[0].low, found[0].high), found[0].p
    else:
        error = sum(one.error**2 for one in found) ** 0.5 / len(found)
        half = float(norm.ppf((1 + judgement.settings.level) / 2)) * error
        ends = difference - half, difference + half
        p = float(2 * norm.sf(abs(difference) / error)) if error > 0 else float(difference == 0)
    return Together(len(found), first, second, *ends, p, "not distinguishable")


def _corrected(means: Sequence[Together | None], judgement: Judgement) -> list[Together | None]:
    """The same with p corrected over the pairs, and what may then be said."""
    corrected = iter(correct([one.corrected for one in means if one is not None], judgement.correction))
    found: list[Together | None] = []
    for one in means:
        if one is not None:
            p = next(corrected)
            one = one._replace(corrected=p, verdict=verdict(one.second - one.first, p, judgement.alpha))
        found.append(one)
    return found
