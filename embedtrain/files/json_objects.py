"""The rows of a .json file that is one object.

{"data": [{"query": ...}, ...]}                       a list of rows under one of `LISTS`
{"query": [...], "positive": [...]}                   columns, as lists
{"query": {"0": ...}, "positive": {"0": ...}}         columns, as pandas writes them
{"queries": {...}, "corpus": {...}, "relevant_docs": {...}}    a ranking; it is one row, read by its parts
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from embedtrain.files.reading import LARGEST
from embedtrain.files.records import BOM, Raw, parse_line
from embedtrain.files.unpacked import CUT, open_unpacked
from embedtrain.types import InputError

LISTS = ("data", "rows", "examples", "records", "items", "instances", "train")
FEWEST = 3  # rows of columns: a row may hold pairs
RANKING = ("queries", "corpus", "relevant_docs")


def object_rows(path: Path, first: Raw, second: Raw | None = None) -> Iterator[Raw] | None:
    """The rows of a file, where it is one object that holds them; None where it holds one row a line.

    Args:
        path: of the file.
        first: its first line that is not blank.
        second: the next one.
    """
    value = _object(path, first, second)
    if value is None:
        return None
    if is_ranking(value):
        return iter([Raw(f"{path}: row 1", 1, value)])
    rows = _rows(value)
    if rows is None:
        return None
    return (Raw(f"{path}: row {number}", number, row) for number, row in enumerate(rows, 1))


def is_ranking(value: object) -> bool:
    """Whether an object holds queries and documents by id, and the relevant ids of each query."""
    return isinstance(value, Mapping) and all(isinstance(value.get(name), Mapping) for name in RANKING)


def _object(path: Path, first: Raw, second: Raw | None) -> dict[str, Any] | None:
    begin = first.value if isinstance(first.value, bytes) else first.begin
    if not begin.lstrip().startswith(b"{"):
        return None
    if second is not None:
        other = second.value if isinstance(second.value, bytes) else second.begin
        if other.lstrip().startswith(b"{") or _is_json(begin):
            return None  # an object a line
    try:
        with open_unpacked(path) as stream:
            content = stream.read(LARGEST + 1)
        return None if len(content) > LARGEST else parse_line(content.removeprefix(BOM), str(path))
    except (InputError, OSError, *CUT):  # the reader of lines names what is wrong
        return None


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _rows(value: Mapping[str, Any]) -> list[Any] | None:
    for name in LISTS:
        listed = value.get(name)
        if isinstance(listed, list) and listed and all(isinstance(row, Mapping) for row in listed):
            return listed
    columns, of_pandas = list(value.values()), False
    if columns and all(isinstance(column, Mapping) and column for column in columns):
        keys = list(columns[0])
        if all(key.isdecimal() for key in keys) and all(list(column) == keys for column in columns):
            columns, of_pandas = [list(column.values()) for column in columns], True
    if all(isinstance(column, list) for column in columns) and len({len(column) for column in columns}) == 1:
        if len(columns) > 1 and (len(columns[0]) >= FEWEST or of_pandas):
            return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]
    return None
