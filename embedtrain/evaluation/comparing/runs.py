"""Measured runs as comparisons see them: the main scores of one step, by task and cell."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

from embedtrain.files.scores import main_scores, read_scores
from embedtrain.types import Cell, Dtype, InputError, Score

TaskSplit = tuple[str, str]


class Run(NamedTuple):
    """One step of a folder with scores."""

    name: str  # as it was asked for
    folder: Path
    step: int
    scores: Mapping[TaskSplit, Mapping[Cell, Score]]  # of the main metric

    @property
    def cells(self) -> set[Cell]:
        """Those that every task has."""
        return set.intersection(*(set(cells) for cells in self.scores.values()))

    def keep(self, tasks: Sequence[str] | None) -> Run:
        """The run with these tasks alone; None keeps all.

        Raises:
            InputError: a task that was not measured.
        """
        if tasks is None:
            return self
        known = {task for task, _ in self.scores}
        if missing := set(tasks) - known:
            raise InputError(
                f"{self.name}: no scores of {', '.join(sorted(missing))}; "
                f"there are {', '.join(sorted(known))}"
            )
        return self._replace(scores={key: cells for key, cells in self.scores.items() if key[0] in tasks})


def read_run(text: str) -> Run:
    """The run of a folder that holds scores.jsonl: its last step, or STEP of FOLDER@STEP.

    Raises:
        InputError: no scores there, or none of that step, or of several models.
    """
    name, _, step = text.partition("@")
    scores = read_scores(Path(name) / "scores.jsonl")
    if not scores:
        apart = Path(name).parent / f"evaluation-{Path(name).name}"
        cure = (
            f"embedtrain-evaluate wrote {apart}: give that"
            if (apart / "scores.jsonl").is_file()
            else "give a run folder with evaluation.tasks, or what embedtrain-evaluate wrote"
        )
        raise InputError(f"{name}: no scores.jsonl with scores in it; {cure}")
    steps = sorted({score.step for score in scores})
    if step and (not step.isdigit() or int(step) not in steps):
        raise InputError(f"{name}: no scores of step {step}; there are {', '.join(map(str, steps))}")
    return at_step(Path(name), int(step) if step else steps[-1], text)


def at_step(folder: Path, step: int, name: str | None = None) -> Run:
    """One step of a folder; `name` is what it is called, by default FOLDER@STEP.

    Raises:
        InputError: no scores of that step, or of several models.
    """
    name = f"{folder}@{step}" if name is None else name
    rows = main_scores([score for score in read_scores(folder / "scores.jsonl") if score.step == step])
    models = sorted({row.run for row in rows})
    if len(models) > 1:
        raise InputError(
            f"{folder}: scores of several models ({', '.join(models)}); give each its own folder"
        )
    if not rows:
        raise InputError(f"{folder}: no scores of step {step}")
    table: dict[TaskSplit, dict[Cell, Score]] = {}
    for row in rows:
        table.setdefault((row.task, row.split), {})[row.cell] = row
    return Run(name, folder, step, table)


def at_whole(one: Run, other: Run) -> tuple[Run, Run, Cell]:
    """Both runs with the tasks that both have, and the largest float32 cell that both measured.

    Raises:
        InputError: they have no task or no such cell in common.
    """
    keys = [key for key in other.scores if key in one.scores]
    if not keys:
        raise InputError(f"{one.name} and {other.name} have no task in common.")
    one, other = (run._replace(scores={key: run.scores[key] for key in keys}) for run in (one, other))
    cells = [cell for cell in one.cells & other.cells if cell.dtype == "float32"]
    if not cells:
        raise InputError(f"{one.name} and {other.name} have no cell in common.")
    return one, other, max(cells, key=lambda cell: (cell.layer * cell.dim, cell.layer))


def read_seeds(text: str, pattern: str) -> dict[str, Run]:
    """The runs of several seeds: the folders named FOLDER + pattern, by what matches the pattern's star.

    Raises:
        InputError: a pattern without exactly one star, or no such folder.
    """
    if pattern.count("*") != 1:
        raise InputError(f"seeds must have one * in it, as _s*, got {pattern!r}")
    name, at, step = text.partition("@")
    base = Path(name)
    shape = re.compile(re.escape(base.name + pattern).replace(r"\*", "(.+)"))
    found = {
        match[1]: read_run(f"{path}{at}{step}")
        for path in sorted(base.parent.glob(base.name + pattern))
        if (match := shape.fullmatch(path.name)) and path.is_dir()
    }
    if not found:
        raise InputError(f"no folder {base}{pattern}; seeds={pattern} names what follows each of runs")
    return found


def cells_of(rows: Sequence[Sequence[int | str]]) -> list[Cell]:
    """Cells from `[[6, 384], [3, 96, int8]]`.

    Raises:
        InputError: a row of another shape.
    """
    found = []
    for row in rows:
        if len(row) not in (2, 3) or not all(isinstance(number, int) for number in row[:2]):
            raise InputError(f"cells must be [layer, dim] or [layer, dim, dtype], got {list(row)}")
        found.append(Cell(int(row[0]), int(row[1]), cast(Dtype, str(row[2]) if len(row) == 3 else "float32")))
    return found


def same_tasks(runs: Sequence[Run]) -> list[TaskSplit]:
    """The tasks that all runs have.

    Raises:
        InputError: they were not measured on the same ones; names what is missing where.
    """
    everything = {key for run in runs for key in run.scores}
    for run in runs:
        if missing := everything - set(run.scores):
            listed = ", ".join(f"{task} ({split})" for task, split in sorted(missing))
            raise InputError(
                f"{run.name} has no scores of {listed}, which others have; evaluate them there too, or "
                "compare on common tasks with tasks=[...]"
            )
    return list(runs[0].scores)
