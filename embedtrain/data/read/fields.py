"""The fields of a row: names settled, values checked, every error with its place."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from embedtrain.files.rows import nearest
from embedtrain.types import InputError

OPTIONAL = ("negative", "negatives", "teacher_scores", "instruction", "task")  # a row may lack these
FIELDS = ("query", "positive", "positives", "score", "text", *OPTIONAL)
SYNONYMS = {"anchor": "query", "sentence1": "query", "sentence2": "positive"}
NUMBERED_NEGATIVE = re.compile(r"negative_(\d{1,9})")


def checked_columns(columns: Mapping[str, str]) -> dict[str, str]:
    """Field -> column, refusing fields we do not have."""
    for field in columns:
        if field not in FIELDS:
            raise InputError(
                f"columns: {field!r} is no field of a row.{nearest(field, list(FIELDS))} "
                f"Write columns={{field: name in your rows}}; the fields are {', '.join(FIELDS)}."
            )
    return dict(columns)


def known_fields(where: str, row: dict[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """The row under our names, nulls left out.

    Raises:
        InputError: when query or positive is not there, unless the row is a `text` alone.
    """
    fields: dict[str, Any] = {}
    taken = set(columns.values())
    for name, value in row.items():
        field = SYNONYMS.get(name, name)
        if value is not None and name not in taken and field in FIELDS and field not in columns:
            fields.setdefault(field, value)
    for field, name in columns.items():
        if name not in row and field not in OPTIONAL:
            raise InputError(_missing(where, name, row))
        if row.get(name) is not None:
            fields[field] = row[name]
    if "text" in fields and not fields.keys() & {"query", "positive", "positives"}:
        return fields
    for field in ("query", "positive"):
        if field not in fields and f"{field}s" not in fields:
            raise InputError(_missing(where, columns.get(field, field), row))
    if "sentence1" in row and "query" not in columns and "score" not in fields:
        raise InputError(_missing(where, "score", row))
    return fields


def _missing(where: str, field: str, row: dict[str, Any]) -> str:
    came = ", ".join(repr(name[:60]) for name in list(row)[:20]) if row else "nothing"
    state = "is null" if field in row else "is missing"
    return (
        f"{where}: field {field!r} {state}; the row has {came}.{nearest(field, list(row))} "
        "If your rows use other names, say columns={field: name in your rows}."
    )


def texts(where: str, field: str, fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Texts of "positive" or "positives" (either may hold one text or a list), each once, in order."""
    found: list[str] = []
    for name in (field, f"{field}s"):
        value = fields.get(name, ())
        values = value if isinstance(value, list | tuple) else [value]
        found += [text_of(where, name, text) for text in values]
    if field == "positive" and not found:
        raise InputError(f"{where}: 'positives' is an empty list. Give at least one text, or drop the row.")
    return tuple(dict.fromkeys(found))


def numbered_negatives(where: str, row: dict[str, Any]) -> tuple[str, ...]:
    """Texts of "negative_1", "negative_2", ... in the order of their numbers."""
    names = sorted((int(match[1]), name) for name in row if (match := NUMBERED_NEGATIVE.fullmatch(name)))
    return tuple(text_of(where, name, row[name]) for _, name in names if row[name] is not None)


def text_of(where: str, field: str, value: object, *, may_be_empty: bool = False) -> str:
    """The value, when it is a text that a tokenizer reads; not empty unless it may be."""
    if not isinstance(value, str):
        raise InputError(f"{where}: {field!r} must be a text, got {type(value).__name__}: {_shown(value)}.")
    if not value.strip() and not may_be_empty:
        raise InputError(f"{where}: {field!r} is an empty text. Fill it or drop the row.")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"{where}: {field!r} holds half a character at position {error.start + 1} (a lone "
                "surrogate), which no tokenizer reads. Repair or drop the row."
            ) from error
    return value


def number_of(where: str, field: str, value: object) -> float:
    """The value, when it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{where}: {field!r} must be a number, got {type(value).__name__}: {_shown(value)}.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InputError(f"{where}: {field!r} must be finite, got {str(value)[:60]}. Repair or drop the row.")
    return number


def _shown(value: object) -> str:
    """The beginning of a value that may be large or nested deeply."""
    return repr(str(value)[:60]) if isinstance(value, str | int | float) else repr(reprlib.repr(value)[:60])


def teacher_scores(where: str, value: object, docs: Sequence[str]) -> tuple[float, ...]:
    """One finite number for each positive and then each negative of the row, or none at all."""
    if not isinstance(value, list | tuple):
        raise InputError(f"{where}: 'teacher_scores' must be a list of numbers, got {type(value).__name__}.")
    if value and len(value) != len(docs):
        raise InputError(
            f"{where}: 'teacher_scores' has {len(value)} numbers for {len(docs)} distinct documents. Give "
            "one for each positive and then for each negative, and name no document twice."
        )
    return tuple(number_of(where, "teacher_scores", number) for number in value)
