"""Training rows of any source to `Example`s.

Rows: {"query", "positive" | "positives", ["negative" | "negatives"], ["score"], ["instruction"], ["prompt"],
["task"], ["teacher_scores"]}; or {"text", ["task"]} where a step needs no pairs. Rows of other tools are
known by their shape (`forms`); any name is understood through `columns`.

A prompt is never part of a text, so that equal texts are known as equal behind any prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from embedtrain.data.read.bad_rows import BadRows, usable
from embedtrain.data.read.fields import Check, Ids, any_text, id_of, text
from embedtrain.data.read.hub import hub_rows, is_hub_name
from embedtrain.data.read.ranking import ranking_rows, training_files
from embedtrain.data.read.training_rows import TrainingRows
from embedtrain.files.records import Raw
from embedtrain.files.rows import nearest, raw_rows
from embedtrain.types import Content, InputError


class Prompts(NamedTuple):
    """What precedes the texts of a row: None is the model's own prompt of that role, "" is none."""

    query: str | None = None
    document: str | None = None


class Example(NamedTuple):
    """One row: a query, what belongs to it, what does not."""

    query: Content
    positives: tuple[Content, ...]  # none of a row that is a text alone
    negatives: tuple[Content, ...]
    score: float | None  # graded similarity of the query and its one positive
    task: str
    where: str  # "file.jsonl:12"
    prompts: Prompts = Prompts()
    teacher: tuple[float, ...] = ()  # a teacher's score of each positive, then of each negative; or none


def offered(examples: Iterable[Example]) -> frozenset[str]:
    """What some row has beyond a pair: "scores", "teacher", "negatives"; "text_alone" if one is no pair."""
    found: set[str] = set()
    for example in examples:
        if not example.positives:
            found.add("text_alone")
        if example.score is not None:
            found.add("scores")
        if example.teacher:
            found.add("teacher")
        if example.negatives:
            found.add("negatives")
    return frozenset(found)


class RowForm:
    """How the rows of one dataset become examples.

    Args:
        source: for messages.
        task: task of rows that name none.
        columns: our field name -> the name it has in the rows, e.g. {"query": "question"}.
        prompts, content: as in `read_examples`.

    Raises:
        InputError: for a field or role that does not exist, a prompt that is no text.
    """

    def __init__(
        self,
        source: object,
        *,
        task: str,
        columns: Mapping[str, str] | None = None,
        prompts: Mapping[str, str | None] | None = None,
        content: Check = text,
    ) -> None:
        self._fields = TrainingRows(columns or {}, content, lambda said: _say(source, said))
        self.task = task
        self._prompts = _checked_prompts(str(source), prompts or {})

    def example(self, where: str, row: dict[str, Any]) -> Example:
        """The example that a row is. Raises InputError naming the row and the field that is wrong."""
        found = self._fields.read(where, row)
        prompts = self._prompts
        if found.prompt is not None:
            prompts = prompts._replace(query=found.prompt)
        if found.instruction is not None:
            prompts = prompts._replace(query=_instruction_prompt(found.instruction))
        if found.document_prompt is not None:
            prompts = prompts._replace(document=found.document_prompt)
        task = found.task or self.task
        return Example(*found[:4], task, where, prompts, found.teacher)


def read_examples(
    source: str | Path,
    *,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    task: str | None = None,
    prompts: Mapping[str, str | None] | None = None,
    bad_rows: BadRows | None = None,
    content: Check = text,
) -> list[Example]:
    """The examples of one dataset, in its order; of each task either all are scored or none is.

    Args:
        source: a file, a folder or a hub name "owner/name" or "owner/name:config"; what exists on disk wins.
        split: part of a folder or hub dataset (hub: "train" when None).
        columns: our field name -> the name it has in the rows, e.g. {"query": "question"}.
        task: task of rows that name none; `task_name(source)` when None.
        prompts: "query" and "document" -> what precedes these texts ("" is nothing); the model's own
            prompt where one is not given. The "instruction" of a row wins over the query's.
        bad_rows: what becomes of rows that cannot be used; the first one is an error when None.
        content: the check of queries and documents, which gives hashable ones (see `Content`); never of a
            list, since a list is several.

    Raises:
        InputError: naming the row for a missing field, an empty text, a wrong type, a score that is not
            finite, an id that another row has, scored and unscored rows together, unless `bad_rows` lets
            them pass; naming the source when it is missing or has no row to use, or for a prompt that is no
            text of a role.
    """
    bad_rows = bad_rows or BadRows()
    name = task if task is not None else task_name(source)
    form = RowForm(source, task=name, columns=columns, prompts=prompts, content=content)
    raws = source_rows(source, split, bad_rows.max_line)
    before = bad_rows.left_out
    examples = list(examples_of(raws, form, bad_rows.add))
    if not examples:
        raise InputError(nothing_to_use(source, bad_rows.left_out - before))
    return examples


def source_rows(source: str | Path, split: str | None, max_line: int) -> Iterator[Raw]:
    """The rows of a file, a folder, a ranking (see `ranking`) or a hub name, unread. Raises InputError."""
    if is_hub_name(source):
        return hub_rows(str(source), split)
    if ranking := training_files(source, split):
        _say(source, f"read as a ranking: a row for each query judged in {ranking['qrels'][0].name}")
        return ranking_rows(ranking, max_line=max_line)
    return raw_rows(source, split=split, max_line=max_line)


def examples_of(
    raws: Iterable[Raw],
    form: RowForm,
    refuse: Callable[[Raw, InputError], None],
    *,
    ids: Ids | None = None,
    one_kind: bool = False,
) -> Iterator[Example]:
    """The examples of a dataset.

    Args:
        raws: all rows, in their order.
        form: how they become examples.
        refuse: as in `usable`.
        ids: of the dataset; remembered in memory when None.
        one_kind: the first row decides whether all have scores, else the first of each task.
    """
    ids, kinds = ids or Ids(), Kinds()

    def example(where: str, row: dict[str, Any]) -> Example:
        ids.add(where, id_of(row))
        found = form.example(where, row)
        kinds.check(form.task if one_kind else found.task, found)
        return found

    return usable(raws, example, refuse)


def nothing_to_use(source: object, left_out: int) -> str:
    """The message for a dataset without a single example."""
    if left_out:
        return f"{source}: none of its {left_out} rows can be used. The report of bad rows says why."
    return f"{source}: holds no rows. Give a dataset with at least one row."


def task_name(source: str | Path) -> str:
    """The task of rows that name none: folder and stem of a file, name of a folder, or the hub name."""
    path = Path(source).expanduser()
    if path.is_file():
        return f"{path.resolve().parent.name}/{path.name.partition('.')[0]}"
    return path.resolve().name if path.is_dir() else str(source)


class Kinds:
    """Whether the rows of each task are pairs, scored pairs or texts alone: its first row decides."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[str, str]] = {}

    def check(self, task: str, example: Example) -> None:
        """Note the kind of a task's first row. Raises InputError naming both rows where this one differs."""
        kind = "a pair without a score" if example.positives else "a text alone"
        kind = kind if example.score is None else "a scored pair"
        first, there = self._first.setdefault(task, (kind, example.where))
        if first != kind:
            raise InputError(
                f"{example.where} is {kind} and {there} is {first}: they need different losses. "
                "Give all rows of a data set a score or none, or name them as different tasks."
            )


def check_all_scored_or_none(examples: Iterable[Example]) -> None:
    """Raise InputError naming one row of each kind when scored and unscored rows of a task come together."""
    kinds = Kinds()
    for example in examples:
        kinds.check(example.task, example)


def _checked_prompts(source: str, prompts: Mapping[str, str | None]) -> Prompts:
    for role, prompt in prompts.items():
        if role not in Prompts._fields:
            raise InputError(
                f"{source}: prompts: {role!r} is no role of a text, only {' and '.join(Prompts._fields)}."
                f"{nearest(role, list(Prompts._fields))}"
            )
        if prompt is not None:
            any_text(source, f"prompts.{role}", prompt)
    return Prompts(**prompts)


def _say(source: object, said: str) -> None:
    from embedtrain import console  # seconds to import

    console.log(f"{source}: {said}")


@lru_cache(maxsize=1024)
def _instruction_prompt(instruction: str) -> str:
    """The prompt of instruction-tuned embedders (E5-instruct, Qwen3-Embedding). Decided only here."""
    return f"Instruct: {instruction}\nQuery: " if instruction else ""
