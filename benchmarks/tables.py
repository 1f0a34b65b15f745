"""What a benchmark found, printed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table


def show(found: Mapping[str, Any]) -> None:
    """A table of each list of rows that have the same keys."""
    console = Console(width=120)
    for name, rows in found.items():
        if not isinstance(rows, list):
            continue
        table = Table(title=name)
        for column in rows[0]:
            table.add_column(column, justify="right")
        for row in rows:
            table.add_row(
                *(f"{value:,.4g}" if isinstance(value, float) else f"{value}" for value in row.values())
            )
        console.print(table)
