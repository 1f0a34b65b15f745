"""Rows of CSV and TSV files.

    .csv   quoted as spreadsheets do; commas between cells, or ; or tabs if the first line has no comma
    .tsv   a line a row, tabs between cells; quotes around a whole cell are no part of it

The first line holds names if each of its cells is one word and either one of them is a usual name of a column
or every column has longer texts below. Without names, columns are column_1, column_2, ...; an empty cell is
null.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from embedtrain.files.records import BEGIN, MAX_LINE, Raw, by_position, lines
from embedtrain.types import InputError

NAME = re.compile(r"[^\W\d][\w.:-]{0,60}( [\w.-]{1,20})?")
WORD = re.compile(r"[\w.:-]+")
USUAL = frozenset(
    "query question anchor positive negative pos neg text title sentence1 sentence2 sentence_1 sentence_2 "
    "sentence sent0 sent1 premise hypothesis score label labels answer document passage id _id qid pid "
    "query_id query-id corpus_id corpus-id docid doc_id instruction prompt text1 text2".split()
)
LOOKED_AT = 20  # rows that show whether the first one is of names
Record = tuple[str, int, list[str] | InputError, bytes]  # place, number, cells


def delimited_rows(path: Path, *, max_line: int) -> Iterator[Raw]:
    """The rows of a .csv or .tsv file, packed or not; one with too many or too few cells is a bad row."""
    name = path.name.removesuffix(".gz")
    records = _quoted(path, max_line) if name.endswith(".csv") else _plain(path, max_line)
    start = list(islice(records, LOOKED_AT + 1))
    rows = [cells for _, _, cells, _ in start if not isinstance(cells, InputError)]
    names = _names(rows)
    if names is not None:
        start = start[1:]
    width = len(rows[0]) if rows else 0
    for where, number, cells, begin in chain(start, records):
        if not isinstance(cells, InputError) and len(cells) != width:
            cells = InputError(
                f"{where}: has {len(cells)} cells, the first row has {width}. Quote a cell that holds the "
                "separator or a line break, or repair the row."
            )
        if isinstance(cells, InputError):
            yield Raw(where, number, cells, begin)
            continue
        values: list[Any] = [cell or None for cell in cells]
        yield Raw(where, number, dict(zip(names, values, strict=True)) if names else by_position(values))


def _names(rows: Sequence[list[str]]) -> list[str] | None:
    """The names in the first row; None if it is a row of values."""
    if not rows:
        return None
    first = [cell.strip() for cell in rows[0]]
    if len(set(first)) != len(first) or not all(NAME.fullmatch(cell) for cell in first):
        return None
    below = [row for row in rows[1:] if len(row) == len(first)]
    longer = below and all(
        any(row[column] and not WORD.fullmatch(row[column]) for row in below) for column in range(len(first))
    )
    return first if longer or any(cell.lower() in USUAL for cell in first) else None


def _plain(path: Path, max_line: int) -> Iterator[Record]:
    for raw in lines(path, max_line=max_line):
        if isinstance(raw.value, bytes):
            text = raw.value.removesuffix(b"\r").decode(errors="surrogateescape")
            cells = [_unquoted(cell) for cell in text.split("\t")]
            yield _record(raw.where, raw.number, cells, raw.value)
        elif isinstance(raw.value, InputError):
            yield raw.where, raw.number, raw.value, raw.begin


def _quoted(path: Path, max_line: int) -> Iterator[Record]:
    number = 0  # of the last line that the reader of CSV took
    damage: list[Record] = []

    def texts() -> Iterator[str]:
        nonlocal number
        for raw in lines(path, max_line=max_line, blank=True):
            if isinstance(raw.value, InputError):
                damage.append((raw.where, raw.number, raw.value, raw.begin))
            elif isinstance(raw.value, bytes):
                number = raw.number
                yield raw.value.decode(errors="surrogateescape") + "\n"

    source = texts()
    first = next(source, "")
    separator = "," if "," in first else max(";\t", key=first.count)
    csv.field_size_limit(MAX_LINE)
    begun = 1
    for cells in _parsed(chain([first], source), separator):
        yield from damage
        damage.clear()
        where, begun = f"{path}:{begun}", number + 1
        if isinstance(cells, InputError):
            yield where, number, InputError(f"{where}: {cells}"), b""
        elif any(cells):
            yield _record(where, number, cells, "\n".join(cells).encode(errors="surrogateescape"))
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


def _record(where: str, number: int, cells: list[str], raw: bytes) -> Record:
    if not all(cell.isascii() or _is_utf8(cell) for cell in cells):
        return where, number, InputError(f"{where}: is not UTF-8. Save the file as UTF-8."), raw[:BEGIN]
    return where, number, cells, b""


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
