"""One's own files as mteb tasks. Importing this module imports mteb, which takes 4-5 seconds.

mteb's task classes evaluate; reading local rows is added (`tables`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mteb.abstasks import (
    AbsTask,
    AbsTaskBitextMining,
    AbsTaskClassification,
    AbsTaskClustering,
    AbsTaskPairClassification,
    AbsTaskRetrieval,
    AbsTaskSTS,
    AbsTaskSummarization,
)
from mteb.abstasks.task_metadata import TaskMetadata, TaskType

from embedtrain.evaluation.catalogue.local.sets import RANKINGS
from embedtrain.evaluation.catalogue.local.tables import Files, read_ranking, read_tables
from embedtrain.evaluation.catalogue.official.plain_labels import PlainLabels


class LocalClassification(PlainLabels, AbsTaskClassification):
    """Labelled texts. A classifier learns from train and is scored on another split."""


class LocalFiles:
    """Data read from `files`; put before an mteb task class."""

    kind: str
    files: Files
    eval_splits: Sequence[str]
    dataset: Any

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:  # noqa: ANN401 (mteb's signature)
        """Reads what is evaluated; raises InputError for a malformed row or an empty split."""
        if self.kind in RANKINGS:
            self.dataset = {"default": {self.eval_splits[0]: read_ranking(self.files, self.kind)}}
        else:
            self.dataset = read_tables(self.kind, self.files, self.eval_splits)
        self.data_loaded = True


class _Kind(NamedTuple):
    task: type[AbsTask]
    type: TaskType
    main_score: str
    settings: Mapping[str, Any] = {}  # of mteb's class


_KINDS: dict[str, _Kind] = {
    "sts": _Kind(AbsTaskSTS, "STS", "cosine_spearman"),
    "pairs": _Kind(AbsTaskPairClassification, "PairClassification", "max_ap"),
    "classification": _Kind(LocalClassification, "Classification", "accuracy"),
    # k-means on ten samples of all rows; mteb's default would embed 4 % of them
    "clustering": _Kind(
        AbsTaskClustering, "Clustering", "v_measure", {"max_fraction_of_documents_to_embed": None}
    ),
    "bitext": _Kind(AbsTaskBitextMining, "BitextMining", "f1"),
    # mteb scales relevance by these; its metrics are correlations within a text
    "summarization": _Kind(
        AbsTaskSummarization, "Summarization", "cosine_spearman", {"min_score": 0, "max_score": 1}
    ),
    # mteb's @1000 costs ten times more
    "retrieval": _Kind(AbsTaskRetrieval, "Retrieval", "ndcg_at_10", {"k_values": (1, 3, 5, 10, 20, 100)}),
    "reranking": _Kind(AbsTaskRetrieval, "Reranking", "map_at_1000"),
}


def build(kind: str, name: str, files: Files, eval_splits: list[str], revision: str) -> AbsTask:
    """The mteb task of one local data set; `revision` identifies the content of its files."""
    made = _KINDS[kind]
    metadata = TaskMetadata(
        name=name,
        description=f"Local {kind} data set {name}",
        dataset={"path": f"{kind}/{name}", "revision": revision},
        type=made.type,
        category="t2t",
        eval_splits=eval_splits,
        eval_langs=["eng-Latn"],
        main_score=made.main_score,
    )
    attributes = {**made.settings, "metadata": metadata, "files": files, "kind": kind}
    task: AbsTask = type(name, (LocalFiles, made.task), attributes)()
    return task
