"""Rows of any source to `Example`s: names settled, values checked, every error with its place.

Row forms: {"query", "positive" | "positives", ["negative" | "negatives"], ["score"], ["instruction"],
["task"], ["teacher_scores"]}.
Other names are understood as well: "anchor" for the query, "sentence1"/"sentence2" for the two texts of a
scored pair, "negative_1", "negative_2", ... for several negatives; any other name through `columns`.

A prompt is never part of a text, so that equal texts are known as equal whatever stands before them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from embedtrain.rows import SUFFIXES, Row, nearest, read_rows
from embedtrain.types import InputError

OPTIONAL = ("negative", "negatives", "teacher_scores", "instruction", "task")  # a row may lack these
FIELDS = ("query", "positive", "positives", "score", *OPTIONAL)
SYNONYMS = {"anchor": "query", "sentence1": "query", "sentence2": "positive"}
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")
NUMBERED_NEGATIVE = re.compile(r"negative_(\d+)")


class Prompts(NamedTuple):
    """What stands before the texts of a row: None is the model's own prompt of that role, "" is none."""

    query: str | None = None
    document: str | None = None


class Example(NamedTuple):
    """One labelled row: a query, what belongs to it, what does not."""

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...]
    score: float | None  # graded similarity of the query and its one positive
    task: str
    where: str  # "file.jsonl:12"
    prompts: Prompts = Prompts()
    teacher: tuple[float, ...] = ()  # a teacher's score of each positive, then of each negative; or none


def read_examples(
    source: str | Path,
    *,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    task: str | None = None,
    prompts: Mapping[str, str | None] | None = None,
) -> list[Example]:
    """The examples of one dataset, in its order; either all are scored or none is.

    Args:
        source: a file, a folder or a hub name "owner/name" or "owner/name:config"; what exists on disk wins.
        split: part of a folder or hub dataset (hub: "train" when None).
        columns: our field name -> the name it has in the rows, e.g. {"query": "question"}.
        task: task of rows that name none; `task_name(source)` when None.
        prompts: "query" and "document" -> what stands before these texts ("" is nothing); the model's own
            prompt where one is not given. The "instruction" of a row wins over the query's.

    Raises:
        InputError: naming the row for a missing field, an empty text, a wrong type, a score that is not
            finite, scored and unscored rows together; naming the source when it is missing or empty, or for
            a prompt that is no text of a role.
    """
    columns = _checked_columns(columns or {})
    shared = _checked_prompts(str(source), prompts or {})
    rows = _rows(source, split)
    name = task if task is not None else task_name(source)
    examples = [_example(where, row, columns, name, shared) for where, row in rows]
    if not examples:
        raise InputError(f"{source}: holds no rows. Give a dataset with at least one row.")
    check_all_scored_or_none(examples)
    return examples


def task_name(source: str | Path) -> str:
    """The task of rows that name none: folder and stem of a file, name of a folder, or the hub name."""
    path = Path(source).expanduser()
    if path.is_file():
        return f"{path.resolve().parent.name}/{path.name.partition('.')[0]}"
    return path.resolve().name if path.is_dir() else str(source)


def check_all_scored_or_none(examples: Iterable[Example]) -> None:
    """Raise InputError naming one row of each kind when scored and unscored rows of a task come together."""
    first: dict[tuple[str, bool], str] = {}
    for example in examples:
        scored = example.score is not None
        first.setdefault((example.task, scored), example.where)
        other = first.get((example.task, not scored))
        if other is not None:
            where = (example.where, other) if scored else (other, example.where)
            raise InputError(
                f"{where[0]} has a score and {where[1]} has none: scored and unscored rows need different "
                "losses. Give all rows of a data set a score or none, or name them as different tasks."
            )


def _rows(source: str | Path, split: str | None) -> Iterator[Row]:
    path = Path(source).expanduser()
    name = str(source)
    if path.exists() or not HUB_NAME.fullmatch(name) or name.endswith(SUFFIXES) or path.parent.exists():
        return read_rows(path, split=split)
    return _hub_rows(name, split or "train")


def _hub_rows(name: str, split: str) -> Iterator[Row]:
    import datasets  # seconds to import, and only the hub needs it

    repository, _, config = name.partition(":")
    try:
        loaded = datasets.load_dataset(repository, config or None, split=split)
    except Exception as error:  # the library raises a dozen kinds for "not there" and "no network"
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise InputError(
            f"{name}: no such local file or folder, and as a hub dataset (split {split!r}) it cannot be "
            f"loaded ({reason}). "
            "Without network give a local file, or a folder written by datasets.save_to_disk."
        ) from error
    return ((f"{name}: row {number}", dict(row)) for number, row in enumerate(loaded, 1))


def _checked_columns(columns: Mapping[str, str]) -> dict[str, str]:
    """Field -> column, refusing fields we do not have."""
    for field in columns:
        if field not in FIELDS:
            raise InputError(
                f"columns: {field!r} is no field of a row.{nearest(field, list(FIELDS))} "
                f"Write columns={{field: name in your rows}}; the fields are {', '.join(FIELDS)}."
            )
    return dict(columns)


def _checked_prompts(source: str, prompts: Mapping[str, str | None]) -> Prompts:
    for role, prompt in prompts.items():
        if role not in Prompts._fields:
            raise InputError(
                f"{source}: prompts: {role!r} is no role of a text, only {' and '.join(Prompts._fields)}."
                f"{nearest(role, list(Prompts._fields))}"
            )
        if prompt is not None:
            _text(source, f"prompts.{role}", prompt, may_be_empty=True)
    return Prompts(**prompts)


def _example(
    where: str, row: dict[str, Any], columns: Mapping[str, str], task: str, prompts: Prompts
) -> Example:
    fields = _fields(where, row, columns)
    query = _text(where, "query", fields.get("query"))
    positives = _texts(where, "positive", fields)
    negatives = _texts(where, "negative", fields) + _numbered_negatives(where, row)
    score = None if "score" not in fields else _number(where, "score", fields["score"])
    if score is not None and (len(positives) != 1 or negatives):
        raise InputError(
            f"{where}: a scored row is one pair, this one has {len(positives)} positives and "
            f"{len(negatives)} negatives. Drop the score or write one row a pair."
        )
    if "instruction" in fields:
        instruction = _text(where, "instruction", fields["instruction"], may_be_empty=True)
        prompts = prompts._replace(query=_instruction_prompt(instruction))
    name = task if "task" not in fields else _text(where, "task", fields["task"])
    teacher = _teacher(where, fields.get("teacher_scores", ()), (*positives, *negatives))
    return Example(query, positives, negatives, score, name, where, prompts, teacher)


def _teacher(where: str, value: object, docs: Sequence[str]) -> tuple[float, ...]:
    """One finite number for each positive and then each negative of the row, or none at all."""
    if not isinstance(value, list | tuple):
        raise InputError(f"{where}: 'teacher_scores' must be a list of numbers, got {type(value).__name__}.")
    if value and len(value) != len(docs):
        raise InputError(
            f"{where}: 'teacher_scores' has {len(value)} numbers for {len(docs)} distinct documents. Give "
            "one for each positive and then for each negative, and name no document twice."
        )
    return tuple(_number(where, "teacher_scores", number) for number in value)


@lru_cache(maxsize=1024)
def _instruction_prompt(instruction: str) -> str:
    """The prompt of instruction-tuned embedders (E5-instruct, Qwen3-Embedding). Decided only here."""
    return f"Instruct: {instruction}\nQuery: " if instruction else ""


def _fields(where: str, row: dict[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """The row under our names, nulls left out. Raises InputError when query or positive is not there."""
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
    for field in ("query", "positive"):
        if field not in fields and f"{field}s" not in fields:
            raise InputError(_missing(where, columns.get(field, field), row))
    if "sentence1" in row and "query" not in columns and "score" not in fields:
        raise InputError(_missing(where, "score", row))
    return fields


def _missing(where: str, field: str, row: dict[str, Any]) -> str:
    came = ", ".join(map(repr, row)) if row else "nothing"
    state = "is null" if field in row else "is missing"
    return (
        f"{where}: field {field!r} {state}; the row has {came}.{nearest(field, list(row))} "
        "If your rows use other names, say columns={field: name in your rows}."
    )


def _texts(where: str, field: str, fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Texts of "positive" or "positives" (either may hold one text or a list), each once, in order."""
    found: list[str] = []
    for name in (field, f"{field}s"):
        value = fields.get(name, ())
        values = value if isinstance(value, list | tuple) else [value]
        found += [_text(where, name, text) for text in values]
    if field == "positive" and not found:
        raise InputError(f"{where}: 'positives' is an empty list. Give at least one text, or drop the row.")
    return tuple(dict.fromkeys(found))


def _numbered_negatives(where: str, row: dict[str, Any]) -> tuple[str, ...]:
    names = sorted((int(match[1]), name) for name in row if (match := NUMBERED_NEGATIVE.fullmatch(name)))
    return tuple(_text(where, name, row[name]) for _, name in names if row[name] is not None)


def _text(where: str, field: str, value: object, *, may_be_empty: bool = False) -> str:
    if not isinstance(value, str):
        raise InputError(
            f"{where}: {field!r} must be a text, got {type(value).__name__}: {str(value)[:60]!r}."
        )
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


def _number(where: str, field: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(
            f"{where}: {field!r} must be a number, got {type(value).__name__}: {str(value)[:60]!r}."
        )
    if not math.isfinite(value):
        raise InputError(f"{where}: {field!r} must be finite, got {value}. Repair or drop the row.")
    return float(value)
