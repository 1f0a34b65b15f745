"""Which differences of measured scores are more than chance: between runs, between cells, over seeds.

A row is one task and one pair of cells. Without seeds it asks: would other items of the same kind say the
same? With seeds: would other seeds?
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from embedtrain.evaluation.comparing.families import (
    Correction,
    Seeds,
    Signed,
    between_seeds,
    correct,
    over_seeds,
    signed_rank,
)
from embedtrain.evaluation.comparing.runs import Run, TaskSplit, same_tasks
from embedtrain.evaluation.comparing.statistics import Comparison, Settings, Verdict, compare_all, verdict
from embedtrain.evaluation.per_item.stored import ItemValues, items_file, paired, read_items
from embedtrain.types import Cell, InputError

NEAR = 6  # cells that a message lists of those that there are

Pairs = Sequence[tuple[Cell, Cell]]
Place = tuple[Run, Cell]  # whose items are compared


class Judgement(NamedTuple):
    """How differences become verdicts."""

    settings: Settings = Settings()  # of the bootstrap; every interval has its level
    alpha: float = 0.05
    correction: Correction = "holm"  # over all rows of a comparison
    metric: str | None = None  # None: what the items of a task keep first, its main metric where they can


class Side(NamedTuple):
    """One of the two that are compared on a task."""

    run: str
    step: int
    cell: Cell
    score: float
    seeds: Seeds | None = None


class Row(NamedTuple):
    """Two cells on one task."""

    task: str
    split: str
    metric: str
    first: Side
    second: Side
    found: Comparison | None  # None: tasks of this type keep no items
    corrected: float | None = None
    verdict: Verdict | None = None  # of the second

    @property
    def difference(self) -> float:
        """Second - first, in the units of the score."""
        return self.second.score - self.first.score


class OverTasks(NamedTuple):
    """Two cells over all tasks: Wilcoxon's signed ranks of the differences."""

    first: str
    second: str
    tasks: int
    difference: float  # mean over tasks
    wilcoxon: Signed
    corrected: float
    verdict: Verdict


class Smallest(NamedTuple):
    """The smallest cell of a task that is better than the reference or not distinguishable from it."""

    task: str
    split: str
    cell: Cell | None  # None: all are worse
    difference: float | None
    low: float | None  # the loss that the interval cannot exclude


def compare_runs(first: Run, others: Sequence[Run], pairs: Pairs, judgement: Judgement) -> list[Row]:
    """A row per other run, task and pair of (cell of the first run, cell of the other), p corrected over all.

    Raises:
        InputError: other tasks or data, a cell that was not measured, or no items of it.
    """
    keys, rows = same_tasks([first, *others]), dict[tuple[TaskSplit, int, int], Row]()
    asked = [((first, one), (run, other)) for run in others for one, other in pairs]
    for key in keys:
        for place, row in enumerate(rows_of_task(key, asked, judgement)):
            rows[key, *divmod(place, len(pairs))] = row
    order = [(key, run, pair) for run in range(len(others)) for key in keys for pair in range(len(pairs))]
    return judged([rows[place] for place in order], judgement)


def compare_seeds(
    first: Mapping[str, Run], others: Sequence[Mapping[str, Run]], pairs: Pairs, judgement: Judgement
) -> list[Row]:
    """The same over seeds (seed -> run): the scores of each seed, not their items, are what varies.

    Raises:
        InputError: other tasks, a cell that was not measured, fewer than two seeds on a side.
    """
    keys = same_tasks([run for side in (first, *others) for run in side.values()])
    rows = [
        _by_seeds(key, (first, one), (second, other), judgement)
        for second in others
        for key in keys
        for one, other in pairs
    ]
    return judged(rows, judgement)


def over_tasks(rows: Sequence[Row], judgement: Judgement) -> list[OverTasks]:
    """Every pair of cells that has two tasks or more, p corrected over the pairs."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((label(row.first), label(row.second)), []).append(row)
    several = {key: group for key, group in groups.items() if len(group) > 1}
    signed = {key: signed_rank([row.difference for row in group]) for key, group in several.items()}
    corrected = correct([found.p for found in signed.values()], judgement.correction)
    return [
        OverTasks(
            *key,
            len(several[key]),
            mean := fmean(row.difference for row in several[key]),
            found,
            p,
            verdict(mean, p, judgement.alpha),
        )
        for (key, found), p in zip(signed.items(), corrected, strict=True)
    ]


def smallest_cells(rows: Sequence[Row]) -> list[Smallest]:
    """Of each task the smallest second cell that is not worse than the first: fewest layers x dims."""
    tasks: dict[TaskSplit, list[Row]] = {}
    for row in rows:
        if row.verdict is not None:
            tasks.setdefault((row.task, row.split), []).append(row)
    found = []
    for key, group in tasks.items():
        good = [row for row in group if row.verdict != "worse"]
        best = min(good, key=lambda row: _size(row.second.cell), default=None)
        found.append(
            Smallest(*key, None, None, None)
            if best is None
            else Smallest(*key, best.second.cell, best.difference, best.found.low if best.found else None)
        )
    return found


def label(side: Side) -> str:
    """Who a side is, for tables: the run and its cell."""
    return f"{side.run} {side.cell}"


def rows_of_task(
    key: TaskSplit,
    asked: Sequence[tuple[Place, Place]],
    judgement: Judgement,
    read: Callable[[Path], ItemValues] = read_items,
) -> list[Row]:
    """A row for each of the places that are compared on a task, p not corrected; items are read once.

    Raises:
        InputError: a cell that was not measured, no items of it, or other items than the first has.
    """
    sides = {(id(run), cell): side_of(run, cell, key) for pair in asked for run, cell in pair}
    runs = {id(run): run for pair in asked for run, _ in pair}
    items: dict[tuple[int, Cell], ItemValues] = {}
    for run, cell in sides:
        mine = read(items_of(runs[run], key, cell))
        items[run, cell] = paired(next(iter(items.values())), mine)[1] if items else mine
    places = [((id(one[0]), one[1]), (id(other[0]), other[1])) for one, other in asked]
    kept = next(iter(items.values())).about.statistics if items else {}
    if not all(one.about.statistics for one in items.values()):
        metrics = [_main(*one, key) for one, _ in asked]
        return [
            Row(*key, metric, sides[one], sides[other], None)
            for metric, (one, other) in zip(metrics, places, strict=True)
        ]
    metric, numbers = judgement.metric or next(iter(kept)), {place: n for n, place in enumerate(items)}
    samples = [one.sample(metric) for one in items.values()]
    pairs = [(numbers[one], numbers[other]) for one, other in places]
    return [
        Row(
            *key,
            metric,
            sides[one]._replace(score=found.first),
            sides[other]._replace(score=found.second),
            found,
        )
        for found, (one, other) in zip(compare_all(samples, pairs, judgement.settings), places, strict=True)
    ]


def items_of(run: Run, key: TaskSplit, cell: Cell) -> Path:
    """The file with the items of a cell on a task."""
    return items_file(run.folder, key[0], step=run.step, cell=str(cell), split=key[1])


def _by_seeds(
    key: TaskSplit,
    first: tuple[Mapping[str, Run], Cell],
    second: tuple[Mapping[str, Run], Cell],
    judgement: Judgement,
) -> Row:
    level, scores, sides = judgement.settings.level, [], []
    for runs, cell in (first, second):
        scores.append({seed: side_of(run, cell, key).score for seed, run in runs.items()})
        seeds = over_seeds(list(scores[-1].values()), level=level)
        some = next(iter(runs.values()))
        sides.append(Side(_common_name(runs), some.step, cell, seeds.mean, seeds))
    found = between_seeds(scores[0], scores[1], level=level)
    metric = _main(next(iter(first[0].values())), first[1], key)
    return Row(*key, metric, sides[0], sides[1], found)


def judged(rows: Sequence[Row], judgement: Judgement) -> list[Row]:
    """The rows with their p corrected over all of them, and what may then be said."""
    corrected = iter(correct([row.found.p for row in rows if row.found is not None], judgement.correction))
    found = []
    for row in rows:
        if row.found is not None:
            p = next(corrected)
            row = row._replace(corrected=p, verdict=verdict(row.difference, p, judgement.alpha))
        found.append(row)
    return found


def side_of(run: Run, cell: Cell, key: TaskSplit) -> Side:
    """The main score of a run's cell."""
    cells = run.scores[key]
    if cell not in cells:
        near = sorted(cells, key=lambda one: (one.dtype != cell.dtype, abs(one.layer - cell.layer), one))
        more = f" and {len(near) - NEAR} more" if len(near) > NEAR else ""
        there = ", ".join(map(str, near[:NEAR])) + more
        raise InputError(f"{run.name}: {key[0]} was not measured at {cell}; there are {there}")
    return Side(run.name, run.step, cell, cells[cell].value)


def _main(run: Run, cell: Cell, key: TaskSplit) -> str:
    return run.scores[key][cell].metric


def _common_name(runs: Mapping[str, Run]) -> str:
    """runs/mine_s* of runs/mine_s0 and its siblings."""
    seed, run = next(iter(runs.items()))
    head, _, tail = run.name.rpartition(seed)
    return f"{head}*{tail}"


def _size(cell: Cell) -> tuple[int, int, str]:
    return cell.layer * cell.dim, cell.layer, str(cell.dtype)
