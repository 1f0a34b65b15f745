"""Official tasks fed from rows in the local layout, where no copy of the repository is at hand.

The rows take the place of the official data as they are: mteb's loader and transforms do not run. The data's
revision is then the hash of the files, so that scores of other rows, or of the official data, are never
taken for theirs, and differences from mteb's statistics are warned of.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from embedtrain.data.read.ranking import of_split
from embedtrain.evaluation.catalogue.local.sets import RANKINGS, LocalSet, content_hash
from embedtrain.evaluation.catalogue.local.tables import read_ranking, read_tables
from embedtrain.evaluation.catalogue.official.mirror import derived
from embedtrain.evaluation.catalogue.official.statistics import warn_of_differences
from embedtrain.evaluation.mteb_private import Untyped

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

logger = logging.getLogger(__name__)

# the kind of rows that a task of this type takes
KIND_OF = {
    "STS": "sts",
    "PairClassification": "pairs",
    "Classification": "classification",
    "Clustering": "clustering",
    "BitextMining": "bitext",
    "Summarization": "summarization",
    "Retrieval": "retrieval",
    "InstructionRetrieval": "retrieval",
    "Reranking": "reranking",
    "InstructionReranking": "reranking",
}
# further names of a set, beside the task's own; capitals and punctuation never count
ALSO_CALLED = {
    "STSBenchmark": ("stsb",),
    "SICK-R": ("sick",),
    "Banking77Classification": ("banking77",),
    "EmotionClassification": ("emotion",),
    "ImdbClassification": ("imdb",),
}
COLUMNS = {  # kind -> our column -> the attribute of mteb's class that names its own
    "pairs": {
        "sentence1": "input1_column_name",
        "sentence2": "input2_column_name",
        "labels": "label_column_name",
    },
    "classification": {"text": "input_column_name", "label": "label_column_name"},
    "clustering": {"sentences": "input_column_name", "labels": "label_column_name"},
    "summarization": {
        "text": "text_column_name",
        "human_summaries": "human_summaries_column_name",
        "machine_summaries": "machine_summaries_column_name",
        "relevance": "relevancy_column_name",
    },
}
SAME_SPLIT = {name: ("validation", "dev", "val", "valid") for name in ("validation", "dev", "val", "valid")}
WHOLE_SET = {("SICK-R", "test"): ("train", "trial", "dev", "test")}  # what mteb publishes as one split


class Rows(NamedTuple):
    """What serves an official task: `files` by official split, or by part of a ranking."""

    item: LocalSet
    files: dict[str, tuple[Path, ...]]


class FromRows:
    """Put before an official task's class: its data come from local rows."""

    address: Mapping[str, Any]  # the official one
    rows: Rows
    columns: Mapping[str, str]  # ours -> the official class's

    def load_data(self, num_proc: int | None = None, **_: Untyped) -> None:
        """Reads the rows into the columns of the official task; InputError for a malformed row."""
        task: Any = self
        files, splits = self.rows.files, list(task.eval_splits)
        if self.rows.item.kind in RANKINGS:
            ranking = read_ranking(files)
            judged = ranking["relevant_docs"]
            chosen = [row for row, name in enumerate(ranking["queries"]["id"][:]) if name in judged]
            ranking["queries"] = ranking["queries"].select(chosen)
            task.dataset = {task.hf_subsets[0]: {splits[0]: ranking}}
        else:
            tables = read_tables(self.rows.item.kind, files, splits)
            if self.columns:
                tables = tables.rename_columns(dict(self.columns))
            task.dataset = {task.hf_subsets[0]: tables} if task.metadata.is_multilingual else tables
        task.data_loaded = True
        warn_of_differences(task)


def rows_for(task: AbsTask, sets: Sequence[LocalSet]) -> Rows | None:
    """The local set that can serve an official task, or None; a set of its name that cannot is warned of."""
    kind = KIND_OF.get(task.metadata.type)
    names = {_plain(name) for name in (task.metadata.name, *ALSO_CALLED.get(task.metadata.name, ()))}
    item = next((item for item in sets if item.kind == kind and _plain(item.name) in names), None)
    if item is None:
        return None
    files, lack = _files(task, item)
    if lack:
        logger.warning("%s cannot serve %s: %s", item.path, task.metadata.name, lack)
        return None
    return Rows(item, files)


def from_rows(task: AbsTask, rows: Rows) -> AbsTask:
    """The task with its data read from these rows; their hash is the revision of the data."""
    address = {**task.metadata.dataset, "revision": content_hash(rows.files)}
    metadata = task.metadata.model_copy(update={"dataset": address})
    columns = _columns(task, rows.item.kind)
    return derived(
        task, FromRows, metadata=metadata, address=task.metadata.dataset, rows=rows, columns=columns
    )


def _files(task: AbsTask, item: LocalSet) -> tuple[dict[str, tuple[Path, ...]], str]:
    """The files by official split, and what is missing for the set to serve the task."""
    if len(task.hf_subsets) != 1:
        return {}, f"the task has {len(task.hf_subsets)} subsets and rows are of one; choose languages"
    if item.kind in RANKINGS:
        whole = of_split(item.files, None, task.eval_splits, item.path) if item.files else {}
        missing = [part for part in RANKINGS[item.kind] if part not in whole]
        if len(task.eval_splits) > 1:
            return {}, f"the task has the splits {', '.join(task.eval_splits)} and a ranking is one"
        parts: dict[str, tuple[Path, ...]] = {
            part: paths for part, paths in whole.items() if part in RANKINGS[item.kind]
        }
        return parts, f"no {', '.join(missing)}" if missing else ""
    if _columns(task, item.kind) is None:
        return {}, "its data have columns of their own"
    learnt = [getattr(task, "train_split", "train")] if item.kind == "classification" else []
    files = {split: _files_of_split(task, item, split) for split in (*task.eval_splits, *learnt)}
    lacking = [split for split, paths in files.items() if not paths]
    if learnt == ["train"] and "train" not in lacking and len(lacking) == 1:
        return {"train": files["train"]}, ""  # the missing split is held out of train
    return files, f"it has no split {', '.join(lacking)}, only {', '.join(item.files)}" if lacking else ""


def _files_of_split(task: AbsTask, item: LocalSet, split: str) -> tuple[Path, ...]:
    if parts := WHOLE_SET.get((task.metadata.name, split)):
        return tuple(path for part in parts for path in item.files.get(part, ()))
    found = [item.files[name] for name in SAME_SPLIT.get(split, (split,)) if name in item.files]
    return found[0] if found else ()


def _columns(task: Untyped, kind: str) -> dict[str, str] | None:
    """Our column names -> the official class's; None where the class wants another shape."""
    from mteb.abstasks import AbsTaskClusteringLegacy

    if kind == "clustering" and isinstance(task, AbsTaskClusteringLegacy):
        return None
    if kind == "bitext" and task.parallel_subsets:
        return None
    names = {ours: getattr(task, attribute) for ours, attribute in COLUMNS.get(kind, {}).items()}
    if kind == "sts":
        names = {"sentence1": task.column_names[0], "sentence2": task.column_names[1]}
    if not all(isinstance(name, str) for name in names.values()):
        return None
    return {ours: name for ours, name in names.items() if ours != name}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
