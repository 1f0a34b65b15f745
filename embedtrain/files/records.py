"""The rows of one file, unread: bounded lines, arrays, parquet.

Damage is a row of its own, so that a reader can count it: a line that is too long, the place where a
compressed file breaks off, a part of a parquet file. Lines and rows count from 1; blank lines are no rows.
A row that is a list of texts has the columns column_1, column_2, ...
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

from embedtrain.types import InputError

MAX_LINE = 16 << 20  # bytes; a longer line is a bad row and never in memory as a whole
BEGIN = 64 << 10  # bytes of damage that are shown
BOM = b"\xef\xbb\xbf"
CHUNK = 1 << 18
MAX_DIGITS = 4000  # of a whole number; Python itself converts up to 4300
CUT = (EOFError, gzip.BadGzipFile, zlib.error)


class Raw(NamedTuple):
    """A row of a file, or the damage in its place."""

    where: str  # "path:12", and "path: row 12" where there are no lines
    number: int  # 12
    value: bytes | dict[str, Any] | InputError  # a line, a row of a file without lines, or why there is none
    begin: bytes = b""  # of damage: its first bytes
    rows: int = 1  # that are damaged


def by_position(cells: Sequence[Any]) -> dict[str, Any]:
    """Cells without names under column_1, column_2, ..."""
    return {f"column_{number}": cell for number, cell in enumerate(cells, 1)}


def is_texts(row: object) -> bool:
    """Whether a value is a row without names: two texts or more, or pairs of an instruction and a text."""
    return isinstance(row, list) and len(row) > 1 and all(
        isinstance(cell, str) or (isinstance(cell, list) and len(cell) == 2 and is_texts(cell))
        for cell in row
    )  # fmt: skip


def parsed(raw: Raw) -> dict[str, Any]:
    """The row's fields.

    Raises:
        InputError: naming the row, when it is none.
    """
    if isinstance(raw.value, InputError):
        raise raw.value
    return parse_line(raw.value, raw.where) if isinstance(raw.value, bytes) else raw.value


def lines(path: Path, *, max_line: int, blank: bool = False) -> Iterator[Raw]:
    """The lines of a plain or packed file, at most `max_line` bytes of one; blank ones if asked for."""
    number = 0
    try:
        with _open(path) as stream:
            while part := stream.readline(max_line + 1):
                number += 1
                size, whole = len(part), part.endswith(b"\n")
                while not whole and (more := stream.readline(CHUNK)):  # too long, and never held as a whole
                    size, whole = size + len(more), more.endswith(b"\n")
                size, part = size - whole, part.removesuffix(b"\n")
                if number == 1:
                    part = part.removeprefix(BOM)
                where = f"{path}:{number}"
                if size > max_line:
                    error = InputError(
                        f"{where}: the line has {size:,} bytes, more than the {max_line:,} of a row. "
                        "Are line breaks missing? Shorten the row, or drop it."
                    )
                    yield Raw(where, number, error, part[:BEGIN])
                elif blank or (part and not part.isspace()):
                    yield Raw(where, number, part)
    except (*CUT, OSError) as error:
        yield Raw(f"{path}:{number + 1}", number + 1, _broken(path, number, error))


def _broken(path: Path, number: int, error: Exception) -> InputError:
    if isinstance(error, CUT):
        return InputError(
            f"{path}: damaged or cut short after line {number} ({error}). Copy or download it again."
        )
    reason = error.strerror if isinstance(error, OSError) else None
    return InputError(f"{path}: cannot be read after line {number} ({reason or error}).")


def _open(path: Path) -> gzip.GzipFile | BufferedReader:
    return gzip.open(path) if path.name.endswith(".gz") else path.open("rb")


def parse_line(line: bytes, where: str) -> dict[str, Any]:
    """The object of one line.

    Raises:
        InputError: naming the place and what is wrong.
    """
    try:
        row = DECODER.decode(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: byte {error.start + 1} of the line is not UTF-8. Save the file as UTF-8."
        ) from error
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where}: not valid JSON ({error.msg} at character {error.pos + 1}): {_short(line)}. "
            "Each line must be one complete JSON object."
        ) from error
    except (RecursionError, _RefusedError) as error:
        raise InputError(f"{where}: {_refusal(error)}: {_short(line)}. Repair or drop the row.") from error
    if isinstance(row, dict):
        return row
    if is_texts(row):
        return by_position(row)
    raise _no_object(row, where)


def _no_object(row: object, where: str) -> InputError:
    kind = {list: "an array", str: "a string", type(None): "null"}.get(type(row))
    return InputError(
        f'{where}: expected a JSON object like {{"query": ..., "positive": ...}}, found '
        f"{kind or f'the value {str(row)[:60]}'}."
    )


class _RefusedError(ValueError):
    """JSON that can be read and yet is no row."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _RefusedError(f"the field {twice[:60]!r} is there twice")
    return row


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise _RefusedError(f"a number has {len(digits)} digits")
    return int(digits)


DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_int=_integer)


def _refusal(error: Exception) -> str:
    return "objects or arrays are nested too deeply" if isinstance(error, RecursionError) else str(error)


def array_rows(path: Path) -> Iterator[Raw]:
    """Rows of a .json file that is one array; it is read whole."""
    try:
        with _open(path) as stream:
            text = stream.read().removeprefix(BOM).decode("utf-8")
        rows = DECODER.decode(text)
    except UnicodeDecodeError as error:
        wrong = f"{path}: byte {error.start + 1} is not UTF-8. Save the file as UTF-8."
    except json.JSONDecodeError as error:
        wrong = (
            f"{path}:{error.lineno}: not valid JSON ({error.msg} at character {error.colno}). "
            "The file must hold one array of objects, or one object a line."
        )
    except (RecursionError, _RefusedError) as error:
        wrong = f"{path}: {_refusal(error)}. Repair the file."
    except (*CUT, OSError) as error:
        wrong = str(_broken(path, 0, error))
    else:
        for number, row in enumerate(rows, 1):
            where = f"{path}: row {number}"
            if isinstance(row, dict) or is_texts(row):
                yield Raw(where, number, row if isinstance(row, dict) else by_position(row))
            else:  # half a character may be in it
                begin = str(row)[:BEGIN].encode(errors="backslashreplace")
                yield Raw(where, number, _no_object(row, where), begin)
        return
    yield Raw(f"{path}: row 1", 1, InputError(wrong))


def parquet_rows(path: Path) -> Iterator[Raw]:
    """The rows of a parquet file; damage takes the place of the rest of its row group."""
    import pyarrow as pa  # half a second to import
    import pyarrow.parquet as pq

    wrong = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError)
    number = 0
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for group in range(file.num_row_groups):
                end = number + file.metadata.row_group(group).num_rows
                try:
                    for part in file.iter_batches(1024, row_groups=[group]):
                        for value in _values(part):
                            number += 1
                            yield _parquet_row(path, number, value)
                except wrong as error:
                    yield _parquet_row(path, number + 1, error, rows=max(1, end - number))
                number = end
    except wrong as error:
        yield _parquet_row(path, number + 1, error)


def _values(part: Any) -> Iterator[dict[str, Any] | Exception]:  # noqa: ANN401  pyarrow has no types
    """The rows of a batch; where it cannot be taken as a whole (text that is not UTF-8), one by one."""
    try:
        yield from part.to_pylist()
        return
    except (ValueError, OverflowError) as error:
        first = error
    for row in range(part.num_rows):
        try:
            yield part.slice(row, 1).to_pylist()[0]
        except (ValueError, OverflowError) as error:
            yield error if part.num_rows > 1 else first


def _parquet_row(path: Path, number: int, value: dict[str, Any] | Exception, rows: int = 1) -> Raw:
    if isinstance(value, Exception):
        reason = str(value).partition(chr(10))[0]
        value = InputError(
            f"{path}: not a readable parquet file after row {number - 1} ({reason}). Copy or download it "
            "again."
        )
    place = f"row {number}" if rows == 1 else f"rows {number}-{number + rows - 1}"
    return Raw(f"{path}: {place}", number, value, rows=rows)


def _short(line: bytes, most: int = 60) -> str:
    text = line[: 8 * most].decode("utf-8", errors="replace").strip()
    return repr(text if len(text) <= most else text[:most] + "…")
