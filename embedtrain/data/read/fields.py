"""One checker of the fields of rows, for training, mining and evaluation.

A form says which fields the rows of a kind have. Every error names the place of the row, and the field.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol

from embedtrain.files.rows import nearest
from embedtrain.types import InputError

Check = Callable[[str, str, Any], Any]  # (place of the row, name of the field, value) -> the value to use
REQUIRED = object()
# Of a document that is an object.
TEXT_NAMES = ("text", "contents", "content", "passage", "passage_text", "document", "body")
# White space, and what has no width: spaces, joiners, marks of direction and order, a soft hyphen.
BLANK = "".join(chr(code) for code in range(0x10000) if chr(code).isspace()) + (
    "\u00ad\u034f\u061c\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e"
    "\u2060\u2061\u2062\u2063\u2064\ufe0e\ufe0f\ufeff"
)


class Field(NamedTuple):
    """What a row has under a name."""

    check: Check
    default: Any = REQUIRED  # of a field that is missing or null, which is else an error
    may_be_missing: bool = True  # where there is a default; False: only null has it


Form = Mapping[str, Field]


def read_fields(where: str, row: Mapping[str, Any], form: Form) -> dict[str, Any]:
    """The fields of the form, in its order; others are left out.

    Raises:
        InputError: naming the first field that is missing or wrong.
    """
    found = {}
    for name, field in form.items():
        value = row.get(name)
        if value is not None:
            found[name] = field.check(where, name, value)
        elif field.default is REQUIRED or not (field.may_be_missing or name in row):
            raise missing(where, name, row)
        else:
            found[name] = field.default
    return found


def missing(where: str, field: str, row: Mapping[str, Any], cure: str = "") -> InputError:
    """The error for a field that a row lacks, with the nearest name that it has."""
    came = ", ".join(repr(name[:60]) for name in list(row)[:20]) if row else "nothing"
    state = "is null" if field in row else "is missing"
    return InputError(
        f"{where}: field {field!r} {state}; the row has {came}.{nearest(field, list(row))}{cure}"
    )


def text(where: str, field: str, value: object) -> str:
    """The value, when it is a text that a tokenizer reads and not empty."""
    found = any_text(where, field, value)
    if not found.strip(BLANK):
        raise InputError(f"{where}: {field!r} is an empty text. Fill it or drop the row.")
    return found


def any_text(where: str, field: str, value: object) -> str:
    """The value, when it is a text that a tokenizer reads; it may be empty."""
    if not isinstance(value, str):
        raise _wrong(where, field, "a text", value)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"{where}: {field!r} holds half a character at position {error.start + 1} (a lone "
                "surrogate), which no tokenizer reads. Repair or drop the row."
            ) from error
    return value


def number(where: str, field: str, value: object) -> float:
    """The value, when it is a finite number or the digits of one (CSV has texts alone)."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _wrong(where, field, "a number", value)
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    except ValueError:
        comma = re.fullmatch(r"\s*-?\d+,\d+\s*", str(value))
        wanted = (
            f"a number with a decimal point, {str(value).replace(',', '.').strip()}" if comma else "a number"
        )
        raise _wrong(where, field, wanted, value) from None
    if not math.isfinite(found):
        raise InputError(f"{where}: {field!r} must be finite, got {str(value)[:60]}. Repair or drop the row.")
    return found


def whole_number(where: str, field: str, value: object) -> int:
    """The value, when it is a whole number, as 2.0 is."""
    found = number(where, field, value)
    if found != int(found):
        raise _wrong(where, field, "a whole number", value)
    return int(found)


def zero_or_one(where: str, field: str, value: object) -> int:
    """0 or 1."""
    if isinstance(value, str) and value.strip() in ("0", "1"):
        value = int(value)
    if not isinstance(value, int | float) or value not in (0, 1):
        raise _wrong(where, field, "0 or 1", value)
    return int(value)


def label(where: str, field: str, value: object) -> str:
    """A text, or the digits of a whole number."""
    if not isinstance(value, str | int):
        raise _wrong(where, field, "a text or a whole number", value)
    return str(value)


def identifier(where: str, field: str, value: object) -> str:
    """As `label`, but true and false name nothing."""
    if isinstance(value, bool):
        raise _wrong(where, field, "a text or a whole number", value)
    return label(where, field, value)


def passage(where: str, field: str, value: Mapping[str, Any]) -> str:
    """The text of a document that is an object: its title, a space and its text, as mteb joins them."""
    name = next((name for name in TEXT_NAMES if value.get(name) is not None), None)
    if name is None:
        raise missing(where, f"{field}.text", {f"{field}.{key}": part for key, part in value.items()})
    title = any_text(where, f"{field}.title", value.get("title") or "")
    return f"{title} {any_text(where, f'{field}.{name}', value[name])}".strip()


def documents(value: Any) -> list[Any]:  # noqa: ANN401 - whatever the row has
    """One document, or those of an object of lists, as `datasets` writes it: {"title": [], "text": []}."""
    if isinstance(value, Mapping) and value and all(isinstance(part, list) for part in value.values()):
        return [dict(zip(value, one, strict=False)) for one in zip(*value.values(), strict=False)]
    return [value]


def list_of(check: Check, plural: str, *, least: int = 1) -> Check:
    """The check of a list of a least length whose values are checked."""
    return partial(_list, check, plural, least)


def _list(check: Check, plural: str, least: int, where: str, field: str, value: object) -> list[Any]:
    if not isinstance(value, list | tuple) or len(value) < least:
        raise _wrong(where, field, f"a list of {plural}", value)
    return [check(where, field, one) for one in value]


class Places(Protocol):
    """id -> the place of the first row that has it; a dict is one."""

    def setdefault(self, key: str, place: str, /) -> str:
        """As of a dict."""
        ...


class Ids:
    """The ids of the rows so far: no two rows of a dataset have one.

    Args:
        first: where they are remembered; a dict when None.
    """

    def __init__(self, first: Places | None = None) -> None:
        self._first: Places = {} if first is None else first

    def add(self, where: str, key: str | None) -> None:
        """Note a row's id, if it has one. Raises InputError naming both places when another row has it."""
        if key is not None and (first := self._first.setdefault(key, where)) != where:
            raise InputError(
                f"{where}: has the id {key[:80]} of {first}. Drop one, or give each row its own id."
            )


def id_of(row: Mapping[str, Any]) -> str | None:
    """What tells the text or whole number in the field "id" from others; None where there is neither."""
    value = row.get("id")
    if isinstance(value, str):
        return repr(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _wrong(where: str, field: str, wanted: str, value: object) -> InputError:
    """The beginning of the value alone is shown: it may be large or nested deeply."""
    shown = repr(str(value)[:60]) if isinstance(value, str | int | float) else repr(reprlib.repr(value)[:60])
    return InputError(f"{where}: {field!r} must be {wanted}, got {type(value).__name__}: {shown}.")
