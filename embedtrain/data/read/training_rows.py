"""The fields of training rows: a pair, its negatives and what belongs to them, or a text alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from embedtrain.data.read.fields import (
    Check,
    Field,
    Form,
    any_text,
    list_of,
    missing,
    number,
    read_fields,
    text,
)
from embedtrain.files.rows import nearest
from embedtrain.types import InputError

SYNONYMS = {"anchor": "query", "sentence1": "query", "sentence2": "positive"}
NUMBERED_NEGATIVE = re.compile(r"negative_(\d{1,9})")
MUST_EXIST = {"query", "positive", "positives", "score", "text"}  # where `columns` names them
CURE = " If your rows use other names, say columns={field: name in your rows}."


class TrainingRows:
    """The checked fields of each row.

    Args:
        columns: our field name -> the name it has in the rows.
        content: the check of queries and documents.

    Raises:
        InputError: for a field that does not exist.
    """

    def __init__(self, columns: Mapping[str, str], content: Check = text) -> None:
        documents = Field(partial(_one_or_more, content), ())
        self._content = content
        self._alone: Form = {"text": Field(content), "task": Field(text, None)}
        self._pair: Form = {
            "query": Field(content),
            "positive": documents,
            "positives": documents,
            "score": Field(number, None),
            "negative": documents,
            "negatives": documents,
            "teacher_scores": Field(list_of(number, "numbers", least=0), ()),
            "instruction": Field(any_text, None),
            "task": Field(text, None),
        }
        self._known = {**self._pair, **self._alone}
        for field in columns:
            if field not in self._known:
                raise InputError(
                    f"columns: {field!r} is no field of a row.{nearest(field, list(self._known))} "
                    f"Write columns={{field: name in your rows}}; the fields are {', '.join(self._known)}."
                )
        self._columns, self._taken = dict(columns), set(columns.values())

    def read(self, where: str, row: Mapping[str, Any]) -> dict[str, Any]:
        """query, positives, negatives, score, teacher_scores, instruction and task; or text and task.

        Raises:
            InputError: naming the row and the field that is missing or wrong.
        """
        named = self._named(where, row)
        if "text" in named and not named.keys() & {"query", "positive", "positives"}:
            return read_fields(where, named, self._alone)
        for field in ("query", "positive"):
            if field not in named and f"{field}s" not in named:
                raise missing(where, self._columns.get(field, field), row, CURE)
        if "sentence1" in row and "query" not in self._columns and "score" not in named:
            raise missing(where, "score", row, CURE)
        found = read_fields(where, named, self._pair)
        positives = tuple(dict.fromkeys([*found.pop("positive"), *found["positives"]]))
        others = [*found.pop("negative"), *found["negatives"], *self._numbered(where, row)]
        negatives = tuple(dict.fromkeys(others))
        _check_together(where, positives, negatives, found["score"], found["teacher_scores"])
        return {**found, "positives": positives, "negatives": negatives}

    def _named(self, where: str, row: Mapping[str, Any]) -> dict[str, Any]:
        """The row under our names, nulls left out."""
        named: dict[str, Any] = {}
        for name, value in row.items():
            field = SYNONYMS.get(name, name)
            if value is not None and name not in self._taken and field not in self._columns:
                named.setdefault(field, value)
        for field, name in self._columns.items():
            if name not in row and field in MUST_EXIST:
                raise missing(where, name, row, CURE)
            if row.get(name) is not None:
                named[field] = row[name]
        return named

    def _numbered(self, where: str, row: Mapping[str, Any]) -> list[Any]:
        """Documents "negative_1", "negative_2", ... in the order of their numbers."""
        names = sorted((int(match[1]), name) for name in row if (match := NUMBERED_NEGATIVE.fullmatch(name)))
        return [self._content(where, name, row[name]) for _, name in names if row[name] is not None]


def _check_together(
    where: str,
    positives: tuple[Any, ...],
    negatives: tuple[Any, ...],
    score: float | None,
    teacher: list[float],
) -> None:
    if not positives:
        raise InputError(f"{where}: 'positives' is an empty list. Give at least one, or drop the row.")
    if score is not None and (len(positives) != 1 or negatives):
        raise InputError(
            f"{where}: a scored row is one pair, this one has {len(positives)} positives and "
            f"{len(negatives)} negatives. Drop the score or write one row a pair."
        )
    documents = len(positives) + len(negatives)
    if teacher and len(teacher) != documents:
        raise InputError(
            f"{where}: 'teacher_scores' has {len(teacher)} numbers for {documents} distinct documents. Give "
            "one for each positive and then for each negative, and name no document twice."
        )


def _one_or_more(check: Check, where: str, field: str, value: object) -> list[Any]:
    return [check(where, field, one) for one in (value if isinstance(value, list | tuple) else [value])]
