"""One's own files as mteb tasks. Importing this module imports mteb, which takes 4-5 seconds.

mteb's task classes hold the evaluation; what is added is reading local rows (`local_tables`).
"""

from __future__ import annotations

from collections.abc import Sequence
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

from embedtrain.evaluate.catalogue.local.tables import Files, read_ranking, read_tables
from embedtrain.evaluate.catalogue.official.plain_labels import PlainLabels


class LocalTables:
    """A table per split, read from `files`; put before an mteb task class."""

    kind: str
    files: Files
    eval_splits: Sequence[str]

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:  # noqa: ANN401 (mteb's signature)
        """Reads what is evaluated; raises InputError for a malformed row or an empty split."""
        self.dataset = read_tables(self.kind, self.files, self.eval_splits)
        self.data_loaded = True


class LocalRanking:
    """Corpus, queries and graded relevance, read from `files`; put before mteb's retrieval class."""

    files: Files
    dataset: Any

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:  # noqa: ANN401 (mteb's signature)
        """Reads the files; raises InputError for a malformed row, an unknown or repeated id."""
        self.dataset = {"default": {"test": read_ranking(self.files)}}
        self.data_loaded = True


class LocalSTS(LocalTables, AbsTaskSTS):
    """Scored pairs; the scale of the scores does not matter."""


class LocalPairs(LocalTables, AbsTaskPairClassification):
    """Labelled pairs, label 1 for a pair that belongs together."""


class LocalClassification(LocalTables, PlainLabels, AbsTaskClassification):
    """Labelled texts. A classifier learns from train and is scored on another split."""


class LocalClustering(LocalTables, AbsTaskClustering):
    """Labelled texts; k-means on ten samples of all of them (mteb's default would embed 4 % of the rows)."""

    max_fraction_of_documents_to_embed = None


class LocalBitext(LocalTables, AbsTaskBitextMining):
    """Translations: is the nearest of all second sentences the right one?"""


class LocalSummarization(LocalTables, AbsTaskSummarization):
    """Summaries by machines with a relevance each, against summaries by people."""

    min_score, max_score = 0, 1  # mteb scales relevance by these; its metrics are correlations within a text


class LocalRetrieval(LocalRanking, AbsTaskRetrieval):
    """Search in a whole corpus; metrics at 1..100 (mteb's @1000 costs ten times more)."""

    k_values = (1, 3, 5, 10, 20, 100)


class LocalReranking(LocalRanking, AbsTaskRetrieval):
    """The candidates given for each query, put in order."""


class _Kind(NamedTuple):
    task: type[AbsTask]
    type: TaskType
    main_score: str


_KINDS: dict[str, _Kind] = {
    "sts": _Kind(LocalSTS, "STS", "cosine_spearman"),
    "pairs": _Kind(LocalPairs, "PairClassification", "max_ap"),
    "classification": _Kind(LocalClassification, "Classification", "accuracy"),
    "clustering": _Kind(LocalClustering, "Clustering", "v_measure"),
    "bitext": _Kind(LocalBitext, "BitextMining", "f1"),
    "summarization": _Kind(LocalSummarization, "Summarization", "cosine_spearman"),
    "retrieval": _Kind(LocalRetrieval, "Retrieval", "ndcg_at_10"),
    "reranking": _Kind(LocalReranking, "Reranking", "map_at_1000"),
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
    task: AbsTask = type(name, (made.task,), {"metadata": metadata, "files": files, "kind": kind})()
    return task
