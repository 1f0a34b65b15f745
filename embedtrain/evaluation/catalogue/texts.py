"""The texts that a task holds, in its data or by the statistics that mteb ships. Imports mteb when called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from embedtrain.evaluation.catalogue.tasks import load
from embedtrain.evaluation.mteb_private import (
    SCORE_QUERIES,
    Untyped,
    same_random_state,
    silenced,
    texts_of_table,
)

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

_NOT_READ = {"id", "_id", "lang", "label", "labels", "split", "query-id", "corpus-id"}


class Placed(NamedTuple):
    """Texts of one table of a task."""

    place: str  # split and column: "test queries"
    texts: list[str]


def texts_of(task: AbsTask) -> list[str]:
    """Every distinct text of the splits that are evaluated or learnt from; documents and queries apart.

    An upper bound where mteb takes samples of them (classification, clustering).

    Raises:
        InputError: if the data are not there.
    """
    learnt = getattr(task, "train_split", None)
    parts = [part.texts for part in placed_texts(task, {*task.eval_splits, *([learnt] if learnt else [])})]
    kinds: tuple[dict[str, None], ...] = ({}, {})
    for number, part in enumerate(parts):
        kinds[number % 2 if _ranks(task) else 0].update(dict.fromkeys(part))
    return [text for kind in kinds for text in kind]


def placed_texts(task: AbsTask, splits: set[str]) -> list[Placed]:
    """The distinct texts of some splits by the table they are in; of a ranking queries, then documents.

    Raises:
        InputError: if the data are not there.
    """
    loaded_before = task.data_loaded
    with silenced(), same_random_state():
        if not loaded_before:
            load(task)
        try:
            return [
                Placed(place, list(dict.fromkeys(texts))) for place, texts in _parts(task.dataset, splits, "")
            ]
        finally:
            if not loaded_before:
                task.unload_data()


def shipped_texts(statistics: Mapping[str, Any]) -> tuple[int, int]:
    """Distinct texts and characters by mteb's statistics of one split, all its columns summed."""
    texts = characters = 0
    for key, value in statistics.items():
        if not isinstance(value, Mapping) or key == "hf_subset_descriptive_stats":
            continue  # the parts of languages are summed above them
        if "total_text_length" in value:
            texts += int(value.get("unique_texts") or 0)
            characters += int(value["total_text_length"] or 0)
    return texts, characters


def _ranks(task: AbsTask) -> bool:
    return hasattr(task, SCORE_QUERIES)


def _parts(data: Untyped, splits: set[str], place: str) -> Iterator[tuple[str, list[str]]]:
    """The texts of every table with its place; of a ranking the queries, then the documents."""
    from datasets import Dataset

    if isinstance(data, Dataset):
        for name in data.column_names:
            if name not in _NOT_READ:
                yield f"{place} {name}".strip(), list(_strings(data[name][:]))
    elif isinstance(data, Mapping) and "corpus" in data and "queries" in data:
        yield f"{place} queries".strip(), texts_of_table(data["queries"], "query")
        yield f"{place} corpus".strip(), texts_of_table(data["corpus"], "document")
    elif isinstance(data, Mapping):
        named = {key: value for key, value in data.items() if key in splits}
        for key, value in (named or data).items():
            yield from _parts(value, splits, f"{place} {key}".strip())


def _strings(value: Untyped) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _strings(item)
