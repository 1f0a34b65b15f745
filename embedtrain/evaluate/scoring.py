"""One task: every sub-model scored by mteb. Importing this module imports mteb, which takes 4-5 seconds.

A cell is finished when mteb's tree holds its result for this weights hash AND this data revision AND this
mteb version; mteb alone would also serve the result of older data. Finished cells are not computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import mteb
from mteb._set_seed import _set_seed
from mteb.abstasks import AbsTask
from mteb.models import ModelMeta
from mteb.results import TaskResult
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from embedtrain.evaluate.adapter import Cell, model_meta
from embedtrain.evaluate.bank import Encodes, GridBank
from embedtrain.evaluate.progress import Tick
from embedtrain.evaluate.tasks import load
from embedtrain.types import Score, SubModel

# beside its main metric, what a task of this type writes to scores.jsonl; mteb's tree has all metrics
FURTHER: dict[str, tuple[str, ...]] = {
    "STS": ("cosine_spearman", "cosine_pearson"),
    "PairClassification": ("cosine_ap", "cosine_f1", "cosine_accuracy"),
    "Classification": ("accuracy", "f1"),
    "Clustering": ("v_measure",),
    "Retrieval": ("ndcg_at_10", "mrr_at_10", "recall_at_10", "recall_at_100"),
    "Reranking": ("map_at_10", "mrr_at_10", "ndcg_at_10"),
}


class Sweep(NamedTuple):
    """What the tasks of one sweep share."""

    encoder: Encodes
    subs: tuple[SubModel, ...]
    run: str
    step: int
    revision: str
    results: Path  # where mteb's tree is
    progress: Callable[[Tick], None]

    @property
    def cache(self) -> mteb.ResultCache:
        """Mteb's view of the result tree; private to the run, never the one in the home directory."""
        return mteb.ResultCache(self.results)

    def meta(self, sub: SubModel) -> ModelMeta:
        """What mteb files the results of a sub-model under."""
        width, num_layers = self.encoder.width, self.encoder.num_layers
        return model_meta(sub, num_layers=num_layers, width=width, run=self.run, revision=self.revision)

    def has_result(self, task: str, sub: SubModel) -> bool:
        """Whether the tree holds a result of these weights."""
        return bool(self.cache.get_task_result_path(task, self.meta(sub)).exists())


def score_task(shared: Sweep, task: AbsTask) -> Iterator[list[Score]]:
    """The scores of one task, a list per cell."""
    counter = _Counter(task.metadata.name, len(shared.subs), shared.progress)
    bank = GridBank(shared.encoder, [sub.layer for sub in shared.subs], counter.texts)
    loaded_before = task.data_loaded
    try:
        for sub in shared.subs:
            cell = Cell(bank, sub, shared.meta(sub))
            result = _finished(shared.cache, cell.mteb_model_meta, task) or _evaluate(
                cell, task, shared.cache
            )
            yield _scores(result, task, shared, sub)
            counter.cell()
    finally:
        if task.data_loaded and not loaded_before:
            task.unload_data()


def _scores(result: TaskResult, task: AbsTask, shared: Sweep, sub: SubModel) -> list[Score]:
    """The rows of one cell, the main metric of each split first."""
    main = task.metadata.main_score
    rows = []
    for split in task.eval_splits:
        parts = result.scores[split]  # one dict of metrics per language
        for metric in dict.fromkeys((main, *FURTHER.get(task.metadata.type, ()))):
            values = [part["main_score"] if metric == main else part.get(metric) for part in parts]
            numbers = [value for value in values if isinstance(value, (int, float))]
            if len(numbers) == len(parts):
                value = round(sum(numbers) / len(numbers), 6)
                where = (task.metadata.name, split, sub.layer, sub.dim)
                rows.append(Score(shared.run, shared.step, *where, metric, value))
    return rows


def _evaluate(cell: Cell, task: AbsTask, cache: mteb.ResultCache) -> TaskResult:
    if not task.data_loaded:
        load(task)
    # mteb's clustering draws its samples from the task's generators: left alone, each cell would see others
    task.rng_state, task.np_rng = _set_seed(task.seed)
    with threadpool_limits(
        1
    ):  # scikit-learn on two threads of a busy machine takes up to 20 times its own work
        outcome = mteb.evaluate(
            cell, task, co2_tracker=False, cache=cache, overwrite_strategy="always", show_progress_bar=False
        )
    return outcome.task_results[0]


def _finished(cache: mteb.ResultCache, meta: ModelMeta, task: AbsTask) -> TaskResult | None:
    """The stored result of a cell if it is whole and of these data and this mteb, else None."""
    try:
        result = cache.load_task_result(task.metadata.name, meta)
    except ValueError:
        return None
    if result is None or result.get_missing_evaluations(task):
        return None
    current = (task.metadata.revision, version("mteb"))
    return result if (result.dataset_revision, result.mteb_version) == current else None


class _Counter:
    """Counts one task's cells and texts and tells them."""

    def __init__(self, task: str, cells: int, tell: Callable[[Tick], None]) -> None:
        self._tick = Tick(task, 0, cells, 0)
        self._tell = tell
        tell(self._tick)

    def texts(self, encoded: int) -> None:
        self._tick = self._tick._replace(texts=encoded)
        self._tell(self._tick)

    def cell(self) -> None:
        self._tick = self._tick._replace(cells_done=self._tick.cells_done + 1)
        self._tell(self._tick)
