"""How many rows a file of lines has and where they begin: counted once, kept in a folder, found again.

    FOLDER/<path>-<state>.npz      rows, marks
    FOLDER/<path>-<state>.ids.npy  the ids that its rows carry, as hashes

Names are hashes of the file's path, and of its size, time of change and the longest line that is read.
"""

from __future__ import annotations

import hashlib
import zipfile
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedtrain.data.read.ids import id_of
from embedtrain.files.atomic import atomic_file
from embedtrain.files.locks import locked
from embedtrain.files.records import lines, parquet_rows, parse_line
from embedtrain.types import InputError

MARK = 10_000  # rows between two places where reading can begin
ID = np.dtype([("hash", "<u8"), ("row", "<i8"), ("number", "<i8")])
PART = 1 << 22  # ids compared at once
FORMAT = 1


class Stamp(NamedTuple):
    """What changes when a file does."""

    size: int
    time: int  # nanoseconds


class Counted(NamedTuple):
    """What counting a file found."""

    rows: int
    marks: NDArray[np.int64]  # (rows / MARK rounded up, 2): lines and bytes before row 0, MARK, 2 MARK, ...
    ids: NDArray[Any]  # (rows with an id,) of ID


def stamp(path: Path) -> Stamp:
    """The state of a file.

    Raises:
        OSError: when it is not there.
    """
    found = path.stat()
    return Stamp(found.st_size, found.st_mtime_ns)


def counted(path: Path, state: Stamp, folder: Path, *, max_line: int) -> Counted:
    """The rows of a file in that state, from `folder` where they have been counted before.

    Processes that ask at the same time count once. Parquet files say their rows themselves; of them only
    the column "id", if there is one, is read.
    """
    file = hashlib.blake2b(str(path.resolve()).encode(errors="surrogateescape"), digest_size=12).hexdigest()
    known = hashlib.blake2b(repr((FORMAT, *state, max_line)).encode(), digest_size=8).hexdigest()
    place = folder / f"{file}-{known}.npz"
    found = _load(place)
    if found is not None:
        return found
    with locked(folder / f"{file}.lock"):
        if (found := _load(place)) is None:
            parquet = path.name.endswith(".parquet")
            found = _count_parquet(path) if parquet else count_lines(path, max_line=max_line)
            for old in folder.glob(f"{file}-*"):
                old.unlink(missing_ok=True)
            rows, marks, ids = found
            with atomic_file(_ids_of(place)) as stream:
                np.save(stream, ids)
            with atomic_file(place) as stream:
                np.savez(stream, rows=rows, marks=marks, ids=len(ids))
    return found


def count_lines(path: Path, *, max_line: int) -> Counted:
    """Read a file of lines once. Damage counts as the rows that `lines` makes of it."""
    marks, hashes, places = array("q"), array("Q"), array("q")
    row = -1
    for row, line in enumerate(lines(path, max_line=max_line)):
        if row % MARK == 0:
            marks.extend((line.number - 1, line.start))
        if isinstance(line.value, bytes) and b'"id"' in line.value:
            try:
                key = id_of(parse_line(line.value, ""))
            except InputError:
                continue
            if key is not None:
                hashes.append(_hash(key))
                places.extend((row, line.number))
    return Counted(row + 1, np.array(marks, dtype=np.int64).reshape(-1, 2), _table(hashes, places))


def repeated(tables: Sequence[NDArray[Any]]) -> dict[tuple[int, int], tuple[int, int]]:
    """(file, row) of each row whose id an earlier one has -> (file, number) of the first that has it.

    Works through the hashes in parts of some million, so memory holds few of them and the repeated rows.

    Args:
        tables: of each file, as `Counted.ids`.
    """
    total = sum(map(len, tables))
    parts = -(-total // PART)
    result: dict[tuple[int, int], tuple[int, int]] = {}
    for part in range(parts):
        mine = [np.flatnonzero(table["hash"] % np.uint64(parts) == part) for table in tables]
        hashes = np.concatenate([table["hash"][at] for table, at in zip(tables, mine, strict=True)])
        owner = np.repeat(np.arange(len(mine)), [len(at) for at in mine])
        within = np.concatenate(mine)
        order = np.argsort(hashes, kind="stable")
        again = np.flatnonzero(hashes[order][1:] == hashes[order][:-1]) + 1
        begins = np.ones(len(order), dtype=bool)
        begins[again] = False
        first = np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))
        for late, early in zip(order[again].tolist(), order[first[again]].tolist(), strict=True):
            row = int(tables[owner[late]]["row"][within[late]])
            result[int(owner[late]), row] = (
                int(owner[early]),
                int(tables[owner[early]]["number"][within[early]]),
            )
    return result


def _count_parquet(path: Path) -> Counted:
    """Rows of a parquet file as `parquet_rows` counts them; one damaged row when nothing can be read."""
    import pyarrow.parquet as pq  # half a second to import

    try:
        with pq.ParquetFile(path) as file:
            sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
            has_ids = "id" in file.schema_arrow.names
    except Exception:  # damaged: pyarrow raises many kinds, and reading the rows says which
        return Counted(sum(raw.rows for raw in parquet_rows(path)), np.zeros((1, 2), np.int64), _table())
    begins = np.cumsum([0, *sizes])
    kept = [0]
    for group in range(1, len(sizes)):
        if begins[group] - begins[kept[-1]] >= MARK:
            kept.append(group)
    hashes, places = array("Q"), array("q")
    for row, key in enumerate(_parquet_ids(path) if has_ids else ()):
        if key is not None:
            hashes.append(_hash(key))
            places.extend((row, row + 1))
    marks = np.stack([begins[kept], np.array(kept)], axis=1).astype(np.int64)  # rows and groups before
    return Counted(int(begins[-1]), marks, _table(hashes, places))


def _parquet_ids(path: Path) -> Iterator[str | None]:
    """The id of each row, None where it has none or cannot be read."""
    for raw in parquet_rows(path, columns=["id"]):
        if isinstance(raw.value, dict):
            yield id_of(raw.value)
        else:
            yield from (None for _ in range(raw.rows))


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")


def _table(hashes: array[int] | None = None, places: array[int] | None = None) -> NDArray[Any]:
    table = np.zeros(len(hashes or ()), dtype=ID)
    if hashes and places:
        table["hash"] = np.frombuffer(hashes, dtype=np.uint64)
        table["row"] = np.frombuffer(places, dtype=np.int64)[::2]
        table["number"] = np.frombuffer(places, dtype=np.int64)[1::2]
    return table


def _ids_of(place: Path) -> Path:
    return place.with_suffix(".ids.npy")


def _load(place: Path) -> Counted | None:
    """What was written there; None when nothing whole is."""
    try:
        with np.load(place) as found:
            ids = np.load(_ids_of(place), mmap_mode="r") if found["ids"] else _table()
            return Counted(int(found["rows"]), found["marks"], ids)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
