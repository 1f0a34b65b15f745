"""What a refresh found, one file a step: for each row that was ever mined for, its newest negatives.

Letters: R rows, K negatives of a row.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedtrain.files import owned
from embedtrain.files.atomic import UNFINISHED, write_bytes
from embedtrain.files.reading import reading

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


class Table(NamedTuple):
    """Negatives by row."""

    rows: Integers  # (R,) row numbers, ascending
    negatives: Integers  # (R, K) document numbers, best first; -1 where a row has fewer
    scores: Floats  # (R, K) by the model that mined; NaN likewise

    def updated(self, found: Mapping[int, tuple[Integers, Floats]]) -> Table:
        """With newer negatives of some rows; the others keep theirs."""
        every = dict(zip(self.rows.tolist(), zip(self.negatives, self.scores, strict=True), strict=True))
        every |= found
        rows = sorted(every)
        if not rows:
            return self
        negatives = np.stack([every[row][0] for row in rows])
        return Table(np.array(rows, dtype=np.int64), negatives, np.stack([every[row][1] for row in rows]))

    def rows_at(self, rows: Sequence[int]) -> list[list[int] | None]:
        """The negatives of each row; None for one that was never mined for."""
        asked = np.array(rows, dtype=np.int64)
        places = np.minimum(np.searchsorted(self.rows, asked), max(len(self.rows) - 1, 0))
        there = self.rows[places] == asked if len(self.rows) else np.zeros(len(asked), dtype=bool)
        return [
            self.negatives[place][self.negatives[place] >= 0].tolist() if some else None
            for place, some in zip(places.tolist(), there.tolist(), strict=True)
        ]


def path_of(folder: Path, step: int) -> Path:
    """The file of an optimiser step."""
    return folder / f"step_{step}.npz"


def steps_of(folder: Path) -> list[int]:
    """The steps that have a file, ascending."""
    return sorted(int(path.stem.removeprefix("step_")) for path in folder.glob("step_*.npz"))


def forget_after(folder: Path, step: int) -> None:
    """Remove the files of later steps, and what a process that was killed had not finished."""
    for later in steps_of(folder):
        if later > step:
            owned.remove_file(path_of(folder, later), folder)
    for unfinished in folder.glob(f".step_*{UNFINISHED}"):
        owned.remove_file(unfinished, folder)


def read_table(folder: Path, step: int, per_row: int, *, must_exist: bool = False) -> Table:
    """The table of a step; an empty one where there is no file.

    Raises:
        InputError: for a file that cannot be read, or is missing where it `must_exist`.
    """
    path = path_of(folder, step)
    if not path.exists() and not must_exist:
        nothing = np.empty((0, per_row))
        return Table(np.empty(0, dtype=np.int64), nothing.astype(np.int64), nothing)
    cure = f"It holds the negatives mined at step {step}: put it back, or start again with overwrite=true"
    with reading(path, cure), np.load(path) as kept:
        return Table(kept["rows"], kept["negatives"], kept["scores"])


def write_table(folder: Path, step: int, table: Table) -> None:
    """Put the table of a step on disk, whole. Raises InputError as `write_bytes`."""
    stream = io.BytesIO()
    np.savez(stream, rows=table.rows, negatives=table.negatives, scores=table.scores)
    write_bytes(path_of(folder, step), stream.getvalue())
