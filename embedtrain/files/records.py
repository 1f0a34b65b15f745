"""The rows of one file, unread: bounded lines and arrays, or one text.

Damage is a row of its own, so that a reader can count it: a line that is too long, the place where a
compressed file breaks off, a part of a parquet file. Lines and rows count from 1; blank lines are no rows.
A row that is a list of texts has the columns column_1, column_2, ...
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Sequence
from io import BufferedIOBase
from pathlib import Path
from typing import Any, NamedTuple

from embedtrain.files.unpacked import CHUNK, CUT, open_unpacked
from embedtrain.types import InputError

MAX_LINE = 16 << 20  # bytes; a longer line is a bad row and never in memory as a whole
BEGIN = 64 << 10  # bytes of damage that are shown
BOM = b"\xef\xbb\xbf"
MAX_DIGITS = 4000  # of a whole number; Python itself converts up to 4300
BLANK = re.compile(r"[ \t\n\r]*")


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
        with open_unpacked(path) as stream:
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


def document_rows(path: Path, *, max_bytes: int) -> Iterator[Raw]:
    """The row {"text": all of the file}; none of a blank file, a bad one of a file that cannot be read."""
    where = f"{path}:1"
    try:
        with open_unpacked(path) as stream:
            content = stream.read(max_bytes + 1).removeprefix(BOM)
    except (*CUT, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        yield Raw(where, 1, InputError(f"{path}: cannot be read ({reason or error}). Copy it again."))
        return
    begin = content[:BEGIN]
    if len(content) > max_bytes:
        wrong = f"{path}: has more than the {max_bytes:,} bytes of a row. Split it into several files."
        yield Raw(where, 1, InputError(wrong), begin)
        return
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        wrong = f"{path}: byte {error.start + 1} is not UTF-8. Save the file as UTF-8."
        yield Raw(where, 1, InputError(wrong), begin)
        return
    if text.strip():
        yield Raw(where, 1, {"text": text})


def _broken(path: Path, number: int, error: Exception, unit: str = "line") -> InputError:
    if isinstance(error, CUT):
        return InputError(
            f"{path}: damaged or cut short after {unit} {number} ({error}). Copy or download it again."
        )
    reason = error.strerror if isinstance(error, OSError) else None
    return InputError(f"{path}: cannot be read after {unit} {number} ({reason or error}).")


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


def array_rows(path: Path, *, max_line: int = MAX_LINE) -> Iterator[Raw]:
    """Rows of a .json file that is one array, a part of the file in memory at a time.

    What is no JSON, or longer than `max_line` characters, takes the place of all rows after it.
    """
    number = 0
    try:
        with open_unpacked(path) as stream:
            for row in _Elements(stream, max_line):
                number += 1
                where = f"{path}: row {number}"
                if isinstance(row, dict) or is_texts(row):
                    yield Raw(where, number, row if isinstance(row, dict) else by_position(row))
                else:  # half a character may be in it
                    begin = str(row)[:BEGIN].encode(errors="backslashreplace")
                    yield Raw(where, number, _no_object(row, where), begin)
        return
    except _ArrayError as error:
        wrong = f"{path}{error}"
    except (RecursionError, _RefusedError) as error:
        wrong = f"{path}: {_refusal(error)}. Repair the file."
    except (*CUT, OSError) as error:
        wrong = str(_broken(path, number, error, "row"))
    yield Raw(f"{path}: row {number + 1}", number + 1, InputError(wrong))


class _ArrayError(ValueError):
    """What is wrong with an array, and where; it follows the path of the file."""


class _Elements:
    """Iterates over the values of a JSON array, of which it holds what it has not yet given."""

    def __init__(self, stream: BufferedIOBase, longest: int) -> None:
        self._stream, self._longest = stream, longest
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text, self._place, self._bytes, self._ended = "", 0, 0, False
        self._line, self._column = 1, 1  # of the first character held

    def __iter__(self) -> Iterator[Any]:
        self._read(CHUNK)
        self._text = self._text.removeprefix("\ufeff")
        self._expect("[")
        if self._next() == "]":
            self._place += 1
        else:
            while True:
                yield self._value()
                if self._expect(",]") == "]":
                    break
        if self._next():
            raise self._wrong("Extra data", self._place)

    def _value(self) -> Any:  # noqa: ANN401 - whatever the file says
        """The value at the place; it is read on until the value is whole, its end seen."""
        self._next()
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self._place)
                if end < len(self._text) or self._ended:
                    self._place = end
                    return value
            except json.JSONDecodeError as error:
                if self._ended:
                    raise self._wrong(error.msg, error.pos) from error
            if len(self._text) - self._place > self._longest:
                raise self._wrong(f"a row has more than {self._longest:,} characters", self._place)
            self._forget()
            self._read(max(CHUNK, len(self._text)))

    def _expect(self, signs: str) -> str:
        found = self._next()
        if not found or found not in signs:
            raise self._wrong(f"Expecting {' or '.join(map(repr, signs))}", self._place)
        self._place += 1
        return found

    def _next(self) -> str:
        """The next character that is no white space, at the place now; "" at the end."""
        while True:
            found = BLANK.match(self._text, self._place)
            self._place = found.end() if found else self._place
            if self._place < len(self._text) or self._ended:
                return self._text[self._place : self._place + 1]
            self._forget()
            self._read(CHUNK)

    def _forget(self) -> None:
        gone, self._text = self._text[: self._place], self._text[self._place :]
        self._line, self._column = self._at(gone, len(gone))
        self._place = 0

    def _at(self, text: str, place: int) -> tuple[int, int]:
        lines = text.count("\n", 0, place)
        return self._line + lines, place - text.rfind("\n", 0, place) if lines else self._column + place

    def _read(self, size: int) -> None:
        part, held = self._stream.read(size), len(self._decoder.getstate()[0])
        self._ended = not part
        try:
            self._text += self._decoder.decode(part, final=self._ended)
        except UnicodeDecodeError as error:
            number = self._bytes - held + error.start + 1
            raise _ArrayError(f": byte {number} is not UTF-8. Save the file as UTF-8.") from error
        self._bytes += len(part)

    def _wrong(self, reason: str, place: int) -> _ArrayError:
        line, column = self._at(self._text, place)
        return _ArrayError(
            f":{line}: not valid JSON ({reason} at character {column}). "
            "The file must hold one array of objects, or one object a line."
        )


def _short(line: bytes, most: int = 60) -> str:
    text = line[: 8 * most].decode("utf-8", errors="replace").strip()
    return repr(text if len(text) <= most else text[:most] + "…")
