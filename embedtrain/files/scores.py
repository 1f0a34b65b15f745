"""scores.jsonl: one `Score` a line, written by evaluation, read by reports; tasks.json, models.json by it.

Order carries one fact: of the lines that share (run, step, task, split, layer, dim, dtype) the first holds
the task's main metric, the others its further ones. `main_scores` reads it back. A line without a dtype is of
float32 vectors.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from embedtrain.files.atomic import append, write_text
from embedtrain.files.measured.lines import line_of, read_lines, write_lines
from embedtrain.files.reading import read_json, reading
from embedtrain.types import InputError, Score


def read_scores(path: Path) -> list[Score]:
    """The rows of a scores.jsonl file in file order; an absent file has none.

    A last line without its newline is what a killed writer leaves: it is left out and logged.

    Raises:
        InputError: a line is no JSON object, or lacks a field, or a field has the wrong type; names file
        and line.
    """
    return read_lines(path, Score)


def write_scores(path: Path, scores: Iterable[Score]) -> None:
    """Replaces the file by these rows at once: a reader sees the old rows or the new ones, never a part."""
    write_lines(path, scores)


def append_scores(path: Path, scores: Iterable[Score]) -> None:
    """Adds rows at the end of the file; they are on disk when it returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    append(path, "".join(map(line_of, scores)).encode(errors="backslashreplace"), flushed=True)


class TaskFacts(NamedTuple):
    """What a leaderboard and a model card say of a task."""

    type: str  # mteb's: STS, Retrieval, ...
    hub_type: str  # the hub's: sentence-similarity, text-retrieval, ...
    dataset: str  # the repository; "local" for one's own data
    revision: str
    subset: str  # "default" without any; those of a task of several, joined by commas
    official: bool  # one of mteb's


def read_tasks(path: Path) -> dict[str, TaskFacts]:
    """What a tasks.json file says, by name; an absent file says nothing.

    Raises:
        InputError: the file is not what `add_tasks` writes.
    """
    if not path.exists():
        return {}
    rows = read_json(path, "Remove it and evaluate again")
    with reading(path, "Remove it and evaluate again"):
        return {name: TaskFacts(**row) for name, row in rows.items()}


def add_tasks(path: Path, tasks: Mapping[str, TaskFacts]) -> None:
    """Puts tasks into the file; those that are there already are replaced."""
    every = read_tasks(path) | dict(tasks)
    rows = {name: facts._asdict() for name, facts in every.items()}
    write_text(path, json.dumps(rows, ensure_ascii=False, indent=1) + "\n")


class ModelFacts(NamedTuple):
    """Which model the lines of a name are of."""

    source: str  # its folder, whole, or hub name
    weights: str  # their hash


def claim_name(path: Path, name: str, model: ModelFacts) -> None:
    """Puts a model into a models.json file under the name that its scores have.

    The same folder with other weights, or the same weights elsewhere, is the same model.

    Raises:
        InputError: another model has the name there, whose scores would go.
    """
    cure = "Remove it and evaluate again"
    known = read_json(path, cure) if path.exists() else {}
    with reading(path, cure):
        every = {key: ModelFacts(**facts) for key, facts in known.items()}
    before = every.get(name, model)
    if before.source != model.source and before.weights != model.weights:
        raise InputError(
            f"{path.parent} holds scores of {before.source}, which has the name {name} too: "
            f"give {model.source} a folder of its own, e.g. output={path.parent}-2"
        )
    if every.get(name) != model:
        facts = {key: one._asdict() for key, one in {**every, name: model}.items()}
        write_text(path, json.dumps(facts, ensure_ascii=False, indent=1) + "\n")


def main_scores(scores: Sequence[Score]) -> list[Score]:
    """The rows that hold the main metric: the first of each (run, step, task, split, layer, dim, dtype)."""
    first: dict[tuple[object, ...], Score] = {}
    for score in scores:
        first.setdefault((*score[:6], score.dtype), score)
    return list(first.values())
