"""Pictures of Score rows: pure functions to matplotlib figures, without pyplot and its global state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from embedtrain.escaping import picture
from embedtrain.files.atomic import atomic_file
from embedtrain.reporting.cells import Cells, dtypes_of, name_of_metric, paired
from embedtrain.types import InputError, Score, SubModel

COLOURS = "cividis"  # reads the same to colour-blind eyes and in grey
OUTLINE = "#d1495b"  # the trained sub-models; differs from both ends of the scale
MISSING = "#ececec"


def heat_map(
    before: Sequence[Score],
    after: Sequence[Score] | None = None,
    trained: Iterable[SubModel] = (),
    title: str | None = None,
    metric: str | None = None,
) -> Figure:
    """One panel, or two (before, after) on one colour scale: layers up, dims right, x 100 in each cell.

    Each dtype has a row of panels. The trained sub-models are outlined. Several tasks show as their mean. An
    empty list counts as none given.

    Raises:
        InputError: no scores at all, no row with `metric`, or cells measured on different tasks.
    """
    old, new = paired(before, after or (), metric)
    panels = [(name, values) for name, values in (("before", old), ("after", new)) if values]
    if not panels:
        raise InputError("no scores to draw")
    shown = sorted({cell for _, values in panels for cell in values})
    dtypes = dtypes_of(shown)
    layers, dims = sorted({cell.layer for cell in shown}), sorted({cell.dim for cell in shown})
    numbers = [value for _, values in panels for value in values.values()]
    scale = Normalize(min(numbers), max(max(numbers), min(numbers) + 1e-9))
    width, height = max(3.2, 0.62 * len(dims) + 1.2), max(2.4, 0.42 * len(layers) + 1.5)
    size = (width * len(panels) + 0.9, height * len(dtypes))
    figure = Figure(figsize=size, layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(dtypes), len(panels), squeeze=False, sharey=True)
    outlined = set(trained) & {cell.sub for cell in shown}
    for row, dtype in zip(axes, dtypes, strict=True):
        for axis, (name, values) in zip(row, panels, strict=True):
            part = {cell: value for cell, value in values.items() if cell.dtype == dtype}
            _panel(axis, part, layers, dims, scale)
            _outline(axis, outlined, layers, dims)
            words = [name] * (len(panels) > 1) + [dtype] * (len(dtypes) > 1)
            axis.set_title(" · ".join(words), fontsize=10)
            axis.set_xlabel("dim", fontsize=9)
        row[0].set_ylabel("layer (blocks run)", fontsize=9)
    bar = figure.colorbar(ScalarMappable(scale, COLOURS), ax=list(axes.flat), fraction=0.05, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8)
    heading = title or name_of_metric([*before, *(after or ())], metric)
    figure.suptitle(picture(heading), fontsize=11)
    if outlined:
        square = Rectangle((0, 0), 1, 1, fill=False, edgecolor=OUTLINE, linewidth=2, label="trained")
        figure.legend(handles=[square], loc="outside lower left", fontsize=9, frameon=False, handlelength=1.2)
    return figure


def save_heat_map(
    path: Path,
    before: Sequence[Score],
    after: Sequence[Score] | None = None,
    trained: Iterable[SubModel] = (),
    title: str | None = None,
    metric: str | None = None,
) -> None:
    """Writes `heat_map` of the same arguments to a file, by its suffix a PNG, SVG or PDF."""
    figure = heat_map(before, after, trained, title, metric)
    with atomic_file(path) as file:
        figure.savefig(file, format=path.suffix.removeprefix("."))


def _panel(axis: Axes, values: Cells, layers: list[int], dims: list[int], scale: Normalize) -> None:
    grid = np.full((len(layers), len(dims)), np.nan)  # (layers, dims)
    for cell, value in values.items():
        grid[layers.index(cell.layer), dims.index(cell.dim)] = value
    axis.set_facecolor(MISSING)
    axis.imshow(np.ma.masked_invalid(grid), cmap=COLOURS, norm=scale, origin="lower", aspect="auto")
    for (row, column), value in np.ndenumerate(grid):
        if not np.isnan(value):
            ink = "black" if scale(value) > 0.5 else "white"
            axis.text(column, row, f"{value:.1f}", ha="center", va="center", color=ink, fontsize=8)
    axis.set_xticks(range(len(dims)), [str(dim) for dim in dims], fontsize=8)
    axis.set_yticks(range(len(layers)), [str(layer) for layer in layers], fontsize=8)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


def _outline(axis: Axes, subs: set[SubModel], layers: list[int], dims: list[int]) -> None:
    for sub in subs:
        corner = (dims.index(sub.dim) - 0.46, layers.index(sub.layer) - 0.44)
        axis.add_patch(Rectangle(corner, 0.92, 0.88, fill=False, edgecolor=OUTLINE, linewidth=2))
