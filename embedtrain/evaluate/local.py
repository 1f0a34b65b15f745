"""One's own files as mteb tasks. Importing this module imports mteb, which takes 4-5 seconds.

mteb's task classes hold the evaluation; what is added is reading DESIGN-layout rows and checking them, with
the file and line in every message.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict
from mteb.abstasks import (
    AbsTask,
    AbsTaskClassification,
    AbsTaskPairClassification,
    AbsTaskRetrieval,
    AbsTaskSTS,
)
from mteb.abstasks.task_metadata import TaskMetadata, TaskType

from embedtrain.evaluate.plain_labels import PlainLabels
from embedtrain.rows import read_rows
from embedtrain.types import InputError

logger = logging.getLogger(__name__)

Row = Mapping[str, Any]
HELD_OUT = (
    5  # one row in so many of each label becomes the test split of a classification set that has only train
)


class LocalSTS(AbsTaskSTS):
    """Scored pairs: {"sentence1", "sentence2", "score"}; the scale of the scores does not matter."""

    files: Mapping[str, Path]

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:  # noqa: ANN401 (mteb's signature)
        """Reads the splits to evaluate; raises InputError for a malformed row or an empty split."""
        fields = {"sentence1": _text, "sentence2": _text, "score": _number}
        self.dataset = DatasetDict({split: _table(self.files[split], fields) for split in self.eval_splits})
        self.data_loaded = True


class LocalPairs(AbsTaskPairClassification):
    """Labelled pairs: {"sentence1", "sentence2", "label"}, label 1 for a pair that belongs together."""

    files: Mapping[str, Path]

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:  # noqa: ANN401 (mteb's signature)
        """Reads the splits to evaluate; raises InputError for a malformed row or an empty split."""
        fields = {"sentence1": _text, "sentence2": _text, "label": _zero_or_one}
        self.dataset = DatasetDict(
            {
                split: _table(self.files[split], fields).rename_column("label", "labels")
                for split in self.eval_splits
            }
        )
        self.data_loaded = True


class LocalClassification(PlainLabels, AbsTaskClassification):
    """Labelled texts: {"text", "label"}. A classifier learns from train and is scored on another split."""

    files: Mapping[str, Path]

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:  # noqa: ANN401 (mteb's signature)
        """Reads train and the splits to evaluate; raises InputError for a malformed row or an empty split."""
        fields = {"text": _text, "label": _label}
        parts = {split: _table(self.files[split], fields) for split in self.files}
        if set(self.eval_splits) - set(parts):
            parts["train"], parts["test"] = hold_out(parts["train"])
            logger.info(
                "%s has only a train split: one row in %d of each label is held out of it as the test split",
                self.metadata.name,
                HELD_OUT,
            )
        names = sorted({label for part in parts.values() for label in part["label"]}, key=_label_order)
        number = {name: position for position, name in enumerate(names)}
        self.dataset = DatasetDict(
            {
                split: Dataset.from_dict(
                    {"text": part["text"][:], "label": [number[name] for name in part["label"]]}
                )
                for split, part in parts.items()
            }
        )
        self.data_loaded = True


class LocalRetrieval(AbsTaskRetrieval):
    """A corpus, queries and graded relevance; metrics at 1..100 (mteb's @1000 costs ten times more)."""

    k_values = (1, 3, 5, 10, 20, 100)
    files: Mapping[str, Path]

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:  # noqa: ANN401 (mteb's signature)
        """Reads the three files; InputError for a malformed row, an unknown or repeated id."""
        corpus = _unique(self.files["corpus"], {"title": _maybe_text, "text": _maybe_text})
        queries = _unique(self.files["queries"], {"text": _text})
        relevant = _relevant(self.files["qrels"], queries, corpus)
        empty = sum(not (row["title"] + row["text"]).strip() for row in corpus.values())
        if empty:
            logger.warning("%s: %d documents without text are kept", self.files["corpus"], empty)
        split: Any = {
            "corpus": Dataset.from_list([{"id": key, **row} for key, row in corpus.items()]),
            "queries": Dataset.from_list([{"id": key, **row} for key, row in queries.items()]),
            "relevant_docs": relevant,
            "top_ranked": None,
        }
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True


KINDS: Mapping[str, tuple[type[AbsTask], TaskType, str]] = {
    "sts": (LocalSTS, "STS", "cosine_spearman"),
    "pairs": (LocalPairs, "PairClassification", "max_ap"),
    "classification": (LocalClassification, "Classification", "accuracy"),
    "retrieval": (LocalRetrieval, "Retrieval", "ndcg_at_10"),
}


def build(kind: str, name: str, files: Mapping[str, Path], eval_splits: list[str], revision: str) -> AbsTask:
    """The mteb task of one local data set; `revision` identifies the content of its files."""
    base, task_type, main_score = KINDS[kind]
    metadata = TaskMetadata(
        name=name,
        description=f"Local {kind} data set {name}",
        dataset={"path": f"{kind}/{name}", "revision": revision},
        type=task_type,
        category="t2t",
        eval_splits=eval_splits,
        eval_langs=["eng-Latn"],
        main_score=main_score,
    )
    task: AbsTask = type(name, (base,), {"metadata": metadata, "files": files})()
    return task


def hold_out(rows: Dataset, seed: int = 0) -> tuple[Dataset, Dataset]:
    """(train, test) of one table: of each label one row in `HELD_OUT` goes to the test; the order is kept."""
    by_label: dict[Any, list[int]] = {}
    for position, label in enumerate(rows["label"]):
        by_label.setdefault(label, []).append(position)
    draw = random.Random(seed)
    held = {row for members in by_label.values() for row in draw.sample(members, len(members) // HELD_OUT)}
    if not held:
        raise InputError(
            f"no label has {HELD_OUT} rows, too few to hold out a test split; add a test or val file"
        )
    return rows.select([row for row in range(len(rows)) if row not in held]), rows.select(sorted(held))


def _table(path: Path, fields: Mapping[str, Callable[[Row, str, str], Any]]) -> Dataset:
    rows = [
        {field: read(row, field, where) for field, read in fields.items()} for where, row in read_rows(path)
    ]
    if not rows:
        raise InputError(f"{path}: no rows; add some or remove the file")
    return Dataset.from_list(rows)


def _unique(path: Path, fields: Mapping[str, Callable[[Row, str, str], Any]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for where, row in read_rows(path):
        key = _id(row, "id", where)
        if key in found:
            raise InputError(f"{where}: id {key!r} was used before; every id in {path.name} must be its own")
        found[key] = {field: read(row, field, where) for field, read in fields.items()}
    if not found:
        raise InputError(f"{path}: no rows; add some or remove the file")
    return found


def _relevant(path: Path, queries: Mapping[str, Any], corpus: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    relevant: dict[str, dict[str, int]] = {}
    for where, row in read_rows(path):
        query, doc, score = (
            _id(row, "query_id", where),
            _id(row, "corpus_id", where),
            _number(row, "score", where),
        )
        if query not in queries:
            raise InputError(f"{where}: query_id {query!r} is not among the queries")
        if doc not in corpus:
            raise InputError(f"{where}: corpus_id {doc!r} is not in the corpus")
        if score != int(score):
            raise InputError(f"{where}: score must be a whole number (0 for not relevant), got {score}")
        relevant.setdefault(query, {})[doc] = int(score)
    if not any(score > 0 for docs in relevant.values() for score in docs.values()):
        raise InputError(f"{path}: no query has a relevant document (a score above 0)")
    return relevant


def _value(row: Row, field: str, where: str) -> Any:  # noqa: ANN401 (checked by the callers)
    if row.get(field) is None:
        raise InputError(f"{where}: no {field!r}; the row has {', '.join(map(repr, row)) or 'no fields'}")
    return row[field]


def _text(row: Row, field: str, where: str) -> str:
    value = _value(row, field, where)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: {field!r} must be a text with something in it, got {value!r}")
    return value


def _maybe_text(row: Row, field: str, where: str) -> str:
    value = "" if row.get(field) is None else row[field]
    if not isinstance(value, str):
        raise InputError(f"{where}: {field!r} must be a text, got {value!r}")
    return value


def _number(row: Row, field: str, where: str) -> float:
    value = _value(row, field, where)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        raise InputError(f"{where}: {field!r} must be a number, got {value!r}")
    return float(value)


def _zero_or_one(row: Row, field: str, where: str) -> int:
    value = _value(row, field, where)
    if value not in (0, 1):
        raise InputError(f"{where}: {field!r} must be 0 or 1, got {value!r}")
    return int(value)


def _label(row: Row, field: str, where: str) -> str:
    value = _value(row, field, where)
    if not isinstance(value, (str, int)):
        raise InputError(f"{where}: {field!r} must be a text or a whole number, got {value!r}")
    return str(value)


def _label_order(name: str) -> tuple[float, str]:
    """Numbers by value, then names: the order scikit-learn would give the labels as they came."""
    return (int(name), "") if name.lstrip("-").isdigit() else (math.inf, name)


def _id(row: Row, field: str, where: str) -> str:
    value = _value(row, field, where)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise InputError(f"{where}: {field!r} must be a text or a whole number, got {value!r}")
    return str(value)
