"""The rotations that were tried for each layer, as a table for the terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from embedtrain.escaping import add_row
from embedtrain.files.measured.rotated import Rotated
from embedtrain.reporting.table import BETTER


def rotated_table(rotated: Rotated) -> Table:
    """A line a layer: the mean over the dims of each rotation x 100, that of the model in colour."""
    dims = " ".join(map(str, rotated.dims))
    title = f"{rotated.metric} x 100 on {rotated.validation_rows} held-out rows, mean over dims {dims}"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    names = list(dict.fromkeys(tried.name for tried in rotated.tried))
    table.add_column("layer", justify="right", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right")
    for layer in sorted({tried.layer for tried in rotated.tried}):
        own = {tried.name: tried for tried in rotated.tried if tried.layer == layer}
        cells = [Text(f"{100 * own[name].score:.2f}", BETTER if own[name].chosen else "") for name in names]
        add_row(table, str(layer), *cells)
    return table
