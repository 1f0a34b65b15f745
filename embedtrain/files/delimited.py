"""Rows of CSV and TSV files.

    .csv   quoted as spreadsheets do; commas between cells, or ; or tabs if the first line has no comma, or
           what a first line `sep=;` says
    .tsv   a line a row, tabs between cells; quotes around a whole cell are no part of it

The first line holds names if each of its cells is one word and either one of them is a usual name of a column
or every column has longer texts below. Without names, columns are column_1, column_2, ..., as is one whose
name is empty; an empty cell is null, and one that holds a list of texts or numbers, as JSON, Python and numpy
write it, is that list. Of a bad row of several lines, each line is a bad row.
"""

from __future__ import annotations

import ast
import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from embedtrain.files.records import BEGIN, MAX_LINE, Raw, by_position, lines
from embedtrain.files.unpacked import without_packing
from embedtrain.types import InputError

NAME = re.compile(r"[^\W\d][\w.:-]{0,60}( [\w.-]{1,20})?")
WORD = re.compile(r"[\w.:-]+")
USUAL = frozenset(
    "query question anchor positive negative pos neg text title sentence1 sentence2 sentence_1 sentence_2 "
    "sentence sent0 sent1 premise hypothesis score label labels answer document passage id _id qid pid "
    "query_id query-id corpus_id corpus-id docid doc_id instruction prompt text1 text2".split()
)
_TEXT = r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
LIST = re.compile(rf"\[\s*(?:(?:{_TEXT}|{_NUMBER})(?:\s*,\s*|\s+|(?=\])))*\]", re.DOTALL)
PART = re.compile(rf"{_TEXT}|{_NUMBER}", re.DOTALL)
LOOKED_AT = 20  # rows that show whether the first one is of names
SEPARATOR = re.compile(r"sep=(.)")  # Excel's first line


class Record(NamedTuple):
    """A row of cells, or what is wrong with it."""

    where: str
    cells: list[str] | InputError
    lines: list[tuple[int, bytes]]  # that it was read from, with their numbers


def delimited_rows(path: Path, *, max_line: int) -> Iterator[Raw]:
    """The rows of a .csv or .tsv file, packed or not; one with too many or too few cells is a bad row."""
    is_csv = without_packing(path.name).endswith(".csv")
    records = _quoted(path, max_line) if is_csv else _plain(path, max_line)
    start = list(islice(records, LOOKED_AT + 1))
    rows = [record.cells for record in start if not isinstance(record.cells, InputError)]
    if rows and isinstance(start[0].cells, InputError):
        raise InputError(f"{start[0].cells} Nothing is read without the first line, which may hold names.")
    try:
        names = _names(rows)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if names is not None:
        start = start[1:]
    width = len(rows[0]) if rows else 0
    for where, cells, raw in chain(start, records):
        if not isinstance(cells, InputError) and len(cells) != width:
            cells = InputError(
                f"{where}: has {len(cells)} cells, the first row has {width}. Quote a cell that holds the "
                "separator or a line break, or repair the row."
            )
        if isinstance(cells, InputError):
            yield from _bad(path, raw, cells)
            continue
        values: list[Any] = [(cell or None) if (many := listed(cell)) is None else many for cell in cells]
        yield Raw(where, raw[0][0], dict(zip(names, values, strict=True)) if names else by_position(values))


def _bad(path: Path, raw: Sequence[tuple[int, bytes]], error: InputError) -> Iterator[Raw]:
    """A bad row for each line of one, so that none is lost without a word."""
    (first, line), *others = raw
    yield Raw(f"{path}:{first}", first, error, line[:BEGIN])
    for number, line in others:
        if line.strip():
            where = f"{path}:{number}"
            part = f"{where}: was read as a part of the bad row of line {first}. Repair that one."
            yield Raw(where, number, InputError(part), line[:BEGIN])


def listed(cell: str) -> list[str] | list[float] | None:
    """The list that a cell holds: of texts, or of two numbers or more; None for any other cell."""
    if not cell.startswith("[") or LIST.fullmatch(cell := cell.strip()) is None:
        return None
    try:
        parts: list[Any] = json.loads(cell)
    except ValueError:  # as Python and numpy write it
        try:
            parts = [ast.literal_eval(part) for part in PART.findall(cell)]
        except (ValueError, SyntaxError):
            return None
    if all(isinstance(part, str) for part in parts):
        return parts
    numbers = [float(part) for part in parts if not isinstance(part, str)]
    return numbers if len(numbers) == len(parts) > 1 else None


def _names(rows: Sequence[list[str]]) -> list[str] | None:
    """The names in the first row; None if it is a row of values. Raises InputError for a name given twice."""
    if not rows:
        return None
    first = [cell.strip() or f"column_{number}" for number, cell in enumerate(rows[0], 1)]
    if not all(NAME.fullmatch(cell) for cell in first):
        return None
    twice = next((cell for cell in first if first.count(cell) > 1), None)
    named = any(cell.lower() in USUAL for cell in first)
    if twice is not None and named:
        raise InputError(f"the first line names the column {twice!r} twice. Give each a name of its own.")
    below = [row for row in rows[1:] if len(row) == len(first)]
    longer = below and all(
        any(row[column] and not WORD.fullmatch(row[column]) for row in below) for column in range(len(first))
    )
    return first if named or (longer and twice is None) else None


def _plain(path: Path, max_line: int) -> Iterator[Record]:
    for raw in lines(path, max_line=max_line):
        if isinstance(raw.value, bytes):
            text = raw.value.removesuffix(b"\r").decode(errors="surrogateescape")
            cells = [_unquoted(cell) for cell in text.split("\t")]
            yield _record(raw.where, cells, [(raw.number, raw.value)])
        elif isinstance(raw.value, InputError):
            yield Record(raw.where, raw.value, [(raw.number, raw.begin)])


def _quoted(path: Path, max_line: int) -> Iterator[Record]:
    taken: list[tuple[int, bytes]] = []  # lines of the row that the reader of CSV reads
    damage: list[Record] = []

    def texts() -> Iterator[str]:
        for raw in lines(path, max_line=max_line, blank=True):
            if isinstance(raw.value, InputError):
                damage.append(Record(raw.where, raw.value, [(raw.number, raw.begin)]))
            elif isinstance(raw.value, bytes):
                taken.append((raw.number, raw.value))
                yield raw.value.decode(errors="surrogateescape") + "\n"

    source = texts()
    first = next(source, "")
    separator = "," if "," in first else max(";\t", key=first.count)
    if said := SEPARATOR.fullmatch(first.rstrip("\r\n")):
        separator = said[1]
        taken.clear()
        first = next(source, "")
    csv.field_size_limit(MAX_LINE)
    for cells in _parsed(chain([first], source), separator):
        yield from damage
        damage.clear()
        raw = taken.copy()
        taken.clear()
        where = f"{path}:{raw[0][0]}" if raw else str(path)
        if isinstance(cells, InputError):
            as_one = f"{len(raw)} lines were read as one: " if len(raw) > 1 else ""
            yield Record(where, InputError(f"{where}: {as_one}{cells}"), raw)
        elif any(cells):
            yield _record(where, cells, raw)
    yield from damage


def _parsed(texts: Iterable[str], separator: str) -> Iterator[list[str] | InputError]:
    reader = csv.reader(texts, delimiter=separator, strict=True)
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield InputError(f"no row of a CSV file ({error}). Repair the quotes of the row.")


def _record(where: str, cells: list[str], raw: list[tuple[int, bytes]]) -> Record:
    if not all(cell.isascii() or _is_utf8(cell) for cell in cells):
        return Record(where, InputError(f"{where}: is not UTF-8. Save the file as UTF-8."), raw)
    return Record(where, cells, raw)


def _is_utf8(cell: str) -> bool:
    return not any("\udc80" <= letter <= "\udcff" for letter in cell)


def _unquoted(cell: str) -> str:
    if (
        len(cell) > 1
        and cell.startswith('"')
        and cell.endswith('"')
        and '"' not in cell[1:-1].replace('""', "")
    ):
        return cell[1:-1].replace('""', '"')
    return cell
