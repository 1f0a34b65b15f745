"""A merged model and its ingredients as a table for the terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from embedtrain.escaping import add_row
from embedtrain.files.measured.merge import Compared, Merge
from embedtrain.reporting.table import BETTER, WORSE

STYLES = {"better": BETTER, "worse": WORSE}


def merged_table(merge: Merge) -> Table:
    """A line a model: its mean x 100 over cells and tasks, and what merging gained on it."""
    title = "means over cells and tasks, x 100"
    caption = "intervals of 95 %, items drawn; p corrected by Holm over the ingredients"
    table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("model", overflow="fold")
    for name in ("score", "merged - this"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("merged is", no_wrap=True)
    for part in merge.parts:
        add_row(table, part.name, *_cells(part.compared))
    add_row(table, merge.run, "" if merge.score is None else f"{100 * merge.score:.2f}", "", "")
    return table


def _cells(found: Compared | None) -> tuple[str | Text, ...]:
    if found is None:
        return "", "", Text("not compared", "dim")
    interval = f"{100 * found.low:+.2f} … {100 * found.high:+.2f}"
    judged = Text(found.verdict, STYLES.get(found.verdict, "dim"))
    change = f"{100 * found.difference:+.2f}\n{interval}"
    return f"{100 * found.score:.2f}", change, judged.append(f"\np {found.p:.3g}", "dim")
