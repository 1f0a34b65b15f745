"""Checked fields of local rows: a reader returns a value or names the file, line and field that is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from embedtrain.files.rows import read_rows
from embedtrain.types import InputError

Row = Mapping[str, Any]
Field = Callable[[Row, str, str], Any]  # (row, field name, where the row is) -> checked value


def checked_rows(files: Iterable[Path], fields: Mapping[str, Field]) -> list[dict[str, Any]]:
    """The rows of the files one after the other, each field read by its reader.

    Raises:
        InputError: a malformed row, or no row at all.
    """
    files = tuple(files)
    rows = [
        {field: read(row, field, where) for field, read in fields.items()}
        for file in files
        for where, row in read_rows(file)
    ]
    if not rows:
        raise InputError(f"{', '.join(map(str, files))}: no rows; add some or remove the file")
    return rows


def rows_by_id(file: Path, fields: Mapping[str, Field]) -> dict[str, dict[str, Any]]:
    """The rows of a file under their `id`, in the file's order.

    Raises:
        InputError: a malformed row, an id used twice, or no row at all.
    """
    found: dict[str, dict[str, Any]] = {}
    for where, row in read_rows(file):
        key = identifier(row, "id", where)
        if key in found:
            raise InputError(f"{where}: id {key!r} was used before; every id in {file.name} must be its own")
        found[key] = {field: read(row, field, where) for field, read in fields.items()}
    if not found:
        raise InputError(f"{file}: no rows; add some or remove the file")
    return found


def value(row: Row, field: str, where: str) -> Any:  # noqa: ANN401 (checked by the other readers)
    """Whatever the row has there; InputError if that is nothing."""
    if row.get(field) is None:
        raise InputError(f"{where}: no {field!r}; the row has {', '.join(map(repr, row)) or 'no fields'}")
    return row[field]


def text(row: Row, field: str, where: str) -> str:
    """A text with something in it."""
    found = value(row, field, where)
    if not isinstance(found, str) or not found.strip():
        raise InputError(f"{where}: {field!r} must be a text with something in it, got {found!r}")
    return found


def maybe_text(row: Row, field: str, where: str) -> str:
    """A text, empty where there is none."""
    found = "" if row.get(field) is None else row[field]
    if not isinstance(found, str):
        raise InputError(f"{where}: {field!r} must be a text, got {found!r}")
    return found


def texts(row: Row, field: str, where: str) -> list[str]:
    """A list of one or more texts."""
    found = value(row, field, where)
    if (
        not isinstance(found, list)
        or not found
        or not all(isinstance(item, str) and item.strip() for item in found)
    ):
        raise InputError(f"{where}: {field!r} must be a list of texts, got {found!r}")
    return found


def number(row: Row, field: str, where: str) -> float:
    """A finite or infinite number, not NaN."""
    found = value(row, field, where)
    if not _is_number(found):
        raise InputError(f"{where}: {field!r} must be a number, got {found!r}")
    return float(found)


def numbers(row: Row, field: str, where: str) -> list[float]:
    """A list of one or more numbers."""
    found = value(row, field, where)
    if not isinstance(found, list) or not found or not all(map(_is_number, found)):
        raise InputError(f"{where}: {field!r} must be a list of numbers, got {found!r}")
    return [float(item) for item in found]


def zero_or_one(row: Row, field: str, where: str) -> int:
    """0 or 1."""
    found = value(row, field, where)
    if found not in (0, 1):
        raise InputError(f"{where}: {field!r} must be 0 or 1, got {found!r}")
    return int(found)


def label(row: Row, field: str, where: str) -> str:
    """A label's name; a number is its digits."""
    found = value(row, field, where)
    if not isinstance(found, (str, int)):
        raise InputError(f"{where}: {field!r} must be a text or a whole number, got {found!r}")
    return str(found)


def identifier(row: Row, field: str, where: str) -> str:
    """An id as text."""
    return _identified(value(row, field, where), field, where)


def identifiers(row: Row, field: str, where: str) -> list[str]:
    """A list of one or more ids as texts."""
    found = value(row, field, where)
    if not isinstance(found, list) or not found:
        raise InputError(f"{where}: {field!r} must be a list of ids, got {found!r}")
    return [_identified(item, field, where) for item in found]


def _identified(found: object, field: str, where: str) -> str:
    if isinstance(found, bool) or not isinstance(found, (str, int)):
        raise InputError(f"{where}: {field!r} must be a text or a whole number, got {found!r}")
    return str(found)


def _is_number(found: object) -> bool:
    return isinstance(found, (int, float)) and not isinstance(found, bool) and found == found
