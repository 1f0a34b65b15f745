"""Comparisons as tables for the terminal, from the rows of a comparison.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from embedtrain.escaping import add_row, styled
from embedtrain.reporting.table import BETTER, WORSE

Row = Mapping[str, Any]
_STYLES = {"better": BETTER, "worse": WORSE}


def _table(title: str, left: str, right: str = "", last: str = "", caption: str = "") -> Table:
    """A table of columns, named by words: texts at the left, then numbers at the right, then a verdict."""
    table = Table(
        title=title,
        caption=styled(caption, "table.caption") if caption else None,
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for name in filter(None, left.split(", ")):
        table.add_column(name, overflow="fold")
    for name in filter(None, right.split(", ")):
        table.add_column(name, justify="right", no_wrap=True)
    for name in filter(None, last.split(", ")):
        table.add_column(name, no_wrap=True)
    return table


def verdict_table(rows: Sequence[Row], *, alpha: float, correction: str) -> Table:
    """A block a task and pair of cells: both scores x 100, difference, interval, verdict, corrected p.

    It fits 80 columns: what belongs together is written below each other.
    """
    caption = f"p corrected by {correction}, a difference below {alpha:g}; intervals of {1 - alpha:.0%}"
    if any(_says_more_than_p(row) for row in rows):
        caption += (
            "\nan interval without 0 and no difference: p counts, few items differ or many rows are compared"
        )
    table = _table("second - first, x 100", "task, first, second", "difference", "verdict", caption)
    runs = {row[side]["run"] for row in rows for side in ("first", "second")}
    for row in rows:
        sides = [
            f"{_side(row[side], named=len(runs) > 1)}\n{_hundred(row[side]['score'])}"
            for side in ("first", "second")
        ]
        chance = "" if row["p"] is None else f"\np {row['corrected']:.3g}"
        judged = Text(row["verdict"] or "no items kept", _STYLES.get(row["verdict"], "dim"))
        add_row(
            table,
            f"{row['task']}\n{row['metric']}",
            *sides,
            f"{100 * row['difference']:+.2f}\n{_interval(row['low'], row['high'])}",
            judged.append(chance, "dim"),
        )
    return table


def tasks_table(rows: Sequence[Row]) -> Table:
    """A line a pair of cells: Wilcoxon's signed ranks over tasks."""
    numbers = "tasks, mean difference, p, least p possible"
    table = _table("over tasks (Wilcoxon signed rank)", "first, second", numbers, "verdict")
    for row in rows:
        add_row(
            table,
            row["first"],
            row["second"],
            str(row["tasks"]),
            f"{100 * row['difference']:+.2f}",
            f"{row['corrected']:.3g}",
            f"{row['smallest_p']:.3g}",
            Text(row["verdict"], _STYLES.get(row["verdict"], "dim")),
        )
    return table


def smallest_table(rows: Sequence[Row]) -> Table:
    """A line a task: the smallest cut that is not worse than the reference, and what it may yet lose."""
    table = _table("smallest cut that is not worse", "task, cut", "difference, loss not excluded")
    for row in rows:
        if row["cell"] is None:
            add_row(table, row["task"], Text("all are worse", "dim"), "", "")
        else:
            loss = max(0.0, -row["low"])
            add_row(table, row["task"], row["cell"], f"{100 * row['difference']:+.2f}", f"{100 * loss:.2f}")
    return table


def subset_table(result: Row) -> Table:
    """A line a dropped task: how predictable it was and how well the rest ranks."""
    kept = ", ".join(result["kept"])
    caption = f"kept: {kept}\nrank correlation with all tasks: Spearman {result['spearman']:.3f}, "
    caption += f"Kendall {result['kendall']:.3f}"
    title = f"tasks dropped, most predictable first; {len(result['kept'])} kept"
    table = _table(title, "dropped", "predictability, Spearman, Kendall", caption=caption)
    for step in result["steps"]:
        numbers = (step[name] for name in ("predictability", "spearman", "kendall"))
        add_row(table, step["dropped"], *(f"{number:.3f}" for number in numbers))
    return table


def _says_more_than_p(row: Row) -> bool:
    """Whether an interval leaves out 0 where the test finds no difference."""
    low, high = row["low"], row["high"]
    return row["verdict"] == "not distinguishable" and low is not None and (low > 0 or high < 0)


def _side(side: Row, *, named: bool) -> str:
    seeds = side["seeds"]
    spread = "" if seeds is None or seeds["sd"] is None else f" ± {100 * seeds['sd']:.2f} (n={seeds['n']})"
    return f"{side['run']} {side['cell']}{spread}" if named else f"{side['cell']}{spread}"


def _hundred(value: float) -> str:
    return f"{100 * value:.2f}"


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{100 * low:+.2f} … {100 * high:+.2f}"
