"""What to type once rows are there."""

from __future__ import annotations

import shlex
from pathlib import Path

from embedtrain.escaping import plain_name


def training_line(rows: Path) -> str:
    """The command that trains on a file of rows, as a shell reads it."""
    name, train = plain_name(rows.name.partition(".")[0]), shlex.quote(f"data.train={rows}")
    return f"next: train on them   embedtrain-train name={name} {train}"
