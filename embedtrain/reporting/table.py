"""The quality of every cell as a table for the terminal, with what a vector takes and a search costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from types import MappingProxyType

from rich import box
from rich.table import Table
from rich.text import Text

from embedtrain.escaping import styled
from embedtrain.reporting.cells import Cells, dtypes_of, means, name_of_metric, paired
from embedtrain.types import Cell, Dtype, Score, SubModel

BETTER, WORSE = "bright_blue", "orange3"  # colour-blind eyes see the difference too
NOTICEABLE = 0.05  # of 100: what the single decimal shown can tell


def comparison(
    before: Sequence[Score],
    after: Sequence[Score] = (),
    metric: str | None = None,
    trained: Iterable[SubModel] = (),
    rescore_multiplier: int | None = None,
    stages: Mapping[str, Sequence[Score]] = MappingProxyType({}),
) -> Table:
    """Rows layers, columns dims, cells "before→after" x 100; trained sub-models bear a ●.

    One of the two lists may be empty: then the cells hold one number. Several tasks show as their mean. Each
    dtype is a block of rows under a line that says how many bytes a vector takes; what comparing a query
    with a document costs is written below, and the mean after each stage that was measured.

    Raises:
        InputError: no row has `metric`, or the cells were measured on different tasks.
    """
    old, new = paired(before, after, metric)
    marked = set(trained)
    shown = sorted({*old, *new})
    title = name_of_metric([*before, *after], metric)
    captions = [
        line
        for dtype in dtypes_of(shown)
        for line in _caption(old, new, [cell for cell in shown if cell.dtype == dtype], marked)
    ]
    captions += [_stage(name, scores, metric, marked) for name, scores in stages.items() if scores]
    dtypes = dtypes_of(shown)
    if len(dtypes) > 1:
        captions += [f"{dtype}: {_cost(dtype, rescore_multiplier)}" for dtype in dtypes]
    table = Table(
        title=styled(title, "table.title"),
        caption="\n".join(captions),
        min_width=2 + max(map(len, [title, *captions])),  # a narrow table would fold them
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
    )
    table.add_column("layer", justify="right", style="bold")
    dims = sorted({cell.dim for cell in shown})
    for dim in dims:
        table.add_column(str(dim), justify="right")
    for dtype in dtypes:
        sizes = [_size(Cell(1, dim, dtype).bytes_per_vector) for dim in dims]
        table.add_row(dtype if len(dtypes) > 1 else "size", *(Text(size, style="dim") for size in sizes))
        for layer in sorted({cell.layer for cell in shown if cell.dtype == dtype}):
            row = [_cell(old, new, Cell(layer, dim, dtype), marked) for dim in dims]
            table.add_row(str(layer), *row)
    return table


def _cell(old: Cells, new: Cells, cell: Cell, trained: set[SubModel]) -> Text:
    mark = "●" if cell.sub in trained else ""
    if cell in old and cell in new:
        change = new[cell] - old[cell]
        style = "" if abs(change) < NOTICEABLE else BETTER if change > 0 else WORSE
        return Text.assemble(mark, f"{old[cell]:.1f}→", (f"{new[cell]:.1f}", style))
    one = old.get(cell, new.get(cell))
    return Text("·", style="dim") if one is None else Text(f"{mark}{one:.1f}")


def _size(count: int) -> str:
    return f"{count} B" if count < 10_000 else f"{count / 1024:.0f} KiB"


def _cost(dtype: Dtype, rescore_multiplier: int | None) -> str:
    """What a query costs beside each document, D being the dim."""
    if dtype in ("float32", "int8"):
        return f"D {dtype} multiply-adds a document"
    again = "" if dtype == "binary" else f" + {rescore_multiplier or 'rescore_multiplier'}·k·D multiply-adds"
    return f"D bit operations a document{again}"


def _stage(name: str, scores: Sequence[Score], metric: str | None, trained: set[SubModel]) -> str:
    cells, _ = paired(scores, [], metric)
    marked = {cell: value for cell, value in cells.items() if cell.sub in trained} or cells
    return f"mean of {len(marked)} after {name}: {fmean(marked.values()):.1f}"


def _caption(old: Cells, new: Cells, shown: Sequence[Cell], trained: set[SubModel]) -> list[str]:
    lines: list[str] = []
    dtype = "" if shown[0].dtype == "float32" else f"{shown[0].dtype}, "
    for what, chosen in (("● trained", [cell for cell in shown if cell.sub in trained]), ("shown", shown)):
        if lines and trained.issuperset(cell.sub for cell in shown):
            break
        both = means(old, new, chosen)
        one = [value for cell in chosen for value in [old.get(cell, new.get(cell))] if value is not None]
        if both is not None:
            ratio = f"  (x {both.after / both.before:.2f})" if both.before > 0 else ""
            lines.append(f"{dtype}mean of {both.of} {what}: {both.before:.1f} → {both.after:.1f}{ratio}")
        elif one:
            lines.append(f"{dtype}mean of {len(one)} {what}: {fmean(one):.1f}")
    return lines
