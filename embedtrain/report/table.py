"""The quality of every sub-model as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

from rich import box
from rich.table import Table
from rich.text import Text

from embedtrain.report.cells import Cells, means, name_of_metric, paired
from embedtrain.types import Score, SubModel

BETTER, WORSE = "bright_blue", "orange3"  # told apart by colour-blind eyes too
NOTICEABLE = 0.05  # of 100: what the single decimal shown can tell


def comparison(
    before: Sequence[Score],
    after: Sequence[Score] = (),
    metric: str | None = None,
    trained: Iterable[SubModel] = (),
) -> Table:
    """Rows layers, columns dims, cells "before→after" x 100; trained sub-models bear a ●.

    One of the two lists may be empty: then the cells hold one number. Several tasks show as their mean.

    Raises:
        InputError: no row has `metric`, or the sub-models were measured on different tasks.
    """
    old, new = paired(before, after, metric)
    marked = set(trained)
    subs = sorted({*old, *new})
    title, caption = name_of_metric([*before, *after], metric), _caption(old, new, subs, marked)
    table = Table(
        title=title,
        caption=caption,
        min_width=2 + max(map(len, [title, *caption.splitlines()])),  # a narrow table would fold them
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
    )
    table.add_column("layer", justify="right", style="bold")
    dims = sorted({sub.dim for sub in subs})
    for dim in dims:
        table.add_column(str(dim), justify="right")
    for layer in sorted({sub.layer for sub in subs}):
        row = [_cell(old, new, SubModel(layer, dim), marked) for dim in dims]
        table.add_row(str(layer), *row)
    return table


def _cell(old: Cells, new: Cells, sub: SubModel, trained: set[SubModel]) -> Text:
    mark = "●" if sub in trained else ""
    if sub in old and sub in new:
        change = new[sub] - old[sub]
        style = "" if abs(change) < NOTICEABLE else BETTER if change > 0 else WORSE
        return Text.assemble(mark, f"{old[sub]:.1f}→", (f"{new[sub]:.1f}", style))
    one = old.get(sub, new.get(sub))
    return Text("·", style="dim") if one is None else Text(f"{mark}{one:.1f}")


def _caption(old: Cells, new: Cells, subs: Sequence[SubModel], trained: set[SubModel]) -> str:
    lines: list[str] = []
    for what, chosen in (("● trained", [sub for sub in subs if sub in trained]), ("shown", subs)):
        if lines and trained.issuperset(subs):
            break
        both = means(old, new, chosen)
        one = [value for sub in chosen for value in [old.get(sub, new.get(sub))] if value is not None]
        if both is not None:
            ratio = f"  (x {both.after / both.before:.2f})" if both.before > 0 else ""
            lines.append(f"mean of {both.of} {what}: {both.before:.1f} → {both.after:.1f}{ratio}")
        elif one:
            lines.append(f"mean of {len(one)} {what}: {fmean(one):.1f}")
    return "\n".join(lines)
