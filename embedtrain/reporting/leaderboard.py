"""A table as mteb's leaderboard has it, a row a cell: means, types and tasks, x 100; CSV and Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from embedtrain.escaping import csv_cell, markdown
from embedtrain.files.atomic import write_text
from embedtrain.files.scores import TaskFacts, main_scores
from embedtrain.types import DTYPES, Cell, Score

Row = dict[str, str | int | float | None]
NAMED = ("Layer", "Dim", "Dtype", "Bytes per vector", "Parameters")


def leaderboard(
    scores: Sequence[Score], tasks: Mapping[str, TaskFacts], parameters: Mapping[int, int]
) -> list[Row]:
    """The rows, the largest cell first; means are None where a cell lacks a task that another has.

    A task's number is the mean of its splits, a type's the mean of its tasks; Mean (Task) is over tasks and
    Mean (TaskType) over types.

    Args:
        scores: of one model at one step; those of funnels are left out.
        tasks: their types; "unknown" where a task is not here.
        parameters: of the model cut to each layer.
    """
    values: dict[Cell, dict[str, list[float]]] = {}
    for score in main_scores([score for score in scores if score.dtype in DTYPES]):
        values.setdefault(score.cell, {}).setdefault(score.task, []).append(100 * score.value)
    names = list(dict.fromkeys(task for found in values.values() for task in found))
    types: dict[str, list[str]] = {}
    for name in names:
        types.setdefault(tasks[name].type if name in tasks else "unknown", []).append(name)
    order = sorted(values, key=lambda cell: (-cell.layer, -cell.dim, DTYPES.index(cell.dtype)))
    return [_row(cell, values[cell], types, parameters) for cell in order]


def write_leaderboard(folder: Path, rows: Sequence[Row]) -> None:
    """Writes leaderboard.csv (four decimals) and leaderboard.md (two); nothing without rows."""
    if not rows:
        return
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(map(csv_cell, rows[0]))
    writer.writerows([_text(value, 4) for value in row.values()] for row in rows)
    write_text(folder / "leaderboard.csv", table.getvalue())
    lines = [list(map(markdown, rows[0])), ["---:"] * len(rows[0])]
    lines += [[_text(value, 2) for value in row.values()] for row in rows]
    write_text(folder / "leaderboard.md", "".join(f"| {' | '.join(line)} |\n" for line in lines))


def _row(
    cell: Cell,
    found: Mapping[str, Sequence[float]],
    types: Mapping[str, Sequence[str]],
    parameters: Mapping[int, int],
) -> Row:
    by_task = {name: fmean(found[name]) if name in found else None for of in types.values() for name in of}
    by_type = {name: _mean([by_task[task] for task in of]) for name, of in types.items()}
    head = (cell.layer, cell.dim, cell.dtype, cell.bytes_per_vector, parameters.get(cell.layer))
    row: Row = dict(zip(NAMED, head, strict=True))
    row["Mean (Task)"] = _mean(list(by_task.values()))
    row["Mean (TaskType)"] = _mean(list(by_type.values()))
    row |= by_type
    for name, value in by_task.items():  # a task may have the name of a type
        row[name if name not in row else f"{name} (task)"] = value
    return row


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def _text(value: str | float | None, decimals: int) -> str:
    if value is None:
        return ""
    return f"{value:.{decimals}f}" if isinstance(value, float) else str(value)
