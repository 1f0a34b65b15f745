"""What a sweep is about, and its results: mteb's tree and the rows that come out of it. Imports mteb.

A cell is finished when the tree holds its result, and items/ what it is made of, for this weights hash AND
this data revision AND this mteb version; mteb alone would also serve the result of older data.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import mteb
from mteb.abstasks import AbsTask
from mteb.models import ModelMeta
from mteb.results import TaskResult

from embedtrain.evaluation.per_item.collect import Collector
from embedtrain.evaluation.per_item.stored import has_items, items_file, write_items
from embedtrain.evaluation.sweeping.adapter import AS_CUT, Serving, model_meta
from embedtrain.evaluation.sweeping.funnel import Funnel, Measured, applies
from embedtrain.evaluation.sweeping.funnel_cell import funnel_meta
from embedtrain.evaluation.vectors.bank import Encodes
from embedtrain.evaluation.vectors.storage import Keeping
from embedtrain.files import owned
from embedtrain.files.atomic import write_text
from embedtrain.types import Cell, InputError, Score

# beside its main metric, what a task of this type writes to scores.jsonl; mteb's tree has all metrics
FURTHER: dict[str, tuple[str, ...]] = {
    "STS": ("cosine_spearman", "cosine_pearson"),
    "PairClassification": ("cosine_ap", "cosine_f1", "cosine_accuracy"),
    "Classification": ("accuracy", "f1"),
    "Clustering": ("v_measure",),
    "Retrieval": (
        *("ndcg_at_10", "mrr_at_10", "recall_at_10", "recall_at_100"),
        *("search_multiply_adds", "search_share"),  # of funnels
    ),
    "Reranking": ("map_at_10", "mrr_at_10", "ndcg_at_10"),
}
Progress = Callable[[str, int, int, str], object]  # task, cells done, cells in all, where vectors came from
IN_MEMORY = Keeping()
log = logging.getLogger(__name__)
DRAFT = ".writing-"  # folders of results that are being written; what a killed sweep left of them is removed


class Sweep(NamedTuple):
    """What the tasks of one sweep share."""

    encoder: Encodes
    cells: tuple[Measured, ...]
    run: str
    step: int
    revision: str
    results: Path  # where mteb's tree is
    progress: Progress
    serving: Serving = AS_CUT
    workers: int = 1
    keeping: Keeping = IN_MEMORY
    mteb_name: str = ""  # of the model in mteb's tree; `run` when empty

    @property
    def cache(self) -> mteb.ResultCache:
        """Mteb's view of the result tree; private to the run, never the one in the home directory."""
        return mteb.ResultCache(self.results)

    def cells_of(self, task: AbsTask) -> tuple[Measured, ...]:
        """The cells that a task is scored with."""
        return tuple(cell for cell in self.cells if applies(cell, task.metadata.type))

    def meta(self, cell: Measured) -> ModelMeta:
        """What mteb files the results of a cell under."""
        size = {"num_layers": self.encoder.num_layers, "width": self.encoder.width}
        last = Cell(*cell.last) if isinstance(cell, Funnel) else cell
        name = self.mteb_name or self.run
        meta = model_meta(last, self.serving, **size, run=name, revision=self.revision)
        return funnel_meta(cell, meta) if isinstance(cell, Funnel) else meta

    def items_file(self, task: str, cell: Measured, split: str) -> Path:
        """Where the items of a cell's scores lie."""
        name = f"{cell.last}_{cell}" if isinstance(cell, Funnel) else str(cell)
        return items_file(self.results.parent, task, step=self.step, cell=name, split=split)

    def has_result(self, task: str, cell: Measured) -> bool:
        """Whether the tree holds a result of these weights."""
        return bool(self.cache.get_task_result_path(task, self.meta(cell)).exists())


def set_other_weights_apart(shared: Sweep) -> None:
    """Gives results of other weights a model name of their own: mteb shows one revision of a name alone.

    mine/REVISION becomes mine_REVISI/REVISION, and mine/REVISION again when these weights are back.
    """
    name = str(shared.meta(shared.cells[0]).name).replace("/", "__")
    own = shared.results / "results" / name
    for other in own.glob("*/"):
        if other.name != shared.revision:
            apart = own.with_name(f"{name}_{other.name[:8]}")
            log.warning("%s: scores of other weights move to %s and leave scores.jsonl", own, apart.name)
            _move(other, apart)
    before = own.with_name(f"{name}_{shared.revision[:8]}") / shared.revision
    if before.is_dir() and not (own / shared.revision).exists():
        _move(before, own)


def _move(revision: Path, model: Path) -> None:
    """Puts the results of a revision under another model, which every model_meta.json then names."""
    target = model / revision.name
    owned.remove_tree(target)  # older results of the same weights
    for meta in revision.rglob("model_meta.json"):
        named = json.loads(meta.read_text("utf-8")) | {"name": model.name.replace("__", "/", 1)}
        write_text(meta, json.dumps(named))
    model.mkdir(exist_ok=True)
    owned.rename(revision, target)
    owned.remove_empty(revision.parent)


def finished(shared: Sweep, task: AbsTask) -> dict[Measured, list[Score]]:
    """The scores of the cells that the tree has whole, with their items, of these data and this mteb."""
    found = {}
    for cell in shared.cells_of(task):
        result = _stored(shared.cache, shared.meta(cell), task)
        if result is not None and _has_items(shared, result, task, cell):
            with suppress(InputError):  # an older result that is no number
                found[cell] = rows_of(result, task, shared, cell)
    return found


def rows_of(result: TaskResult, task: AbsTask, shared: Sweep, cell: Measured) -> list[Score]:
    """The scores of one cell, the main metric of each split first; of several languages their mean."""
    main = task.metadata.main_score
    rows = []
    for split in task.eval_splits:
        # one dict of metrics per language; an earlier run may have left some that are not asked for now
        parts = [part for part in result.scores[split] if part["hf_subset"] in task.hf_subsets]
        for metric in dict.fromkeys((main, *FURTHER.get(task.metadata.type, ()))):
            values = [part["main_score"] if metric == main else part.get(metric) for part in parts]
            numbers = [value for value in values if isinstance(value, (int, float))]
            if len(numbers) == len(parts):
                if metric == main and any(math.isnan(number) for number in numbers):
                    raise InputError(
                        f"{task.metadata.name}: {main} of {cell} is not a number: all vectors, or all scores "
                        "of the data, are equal. Look at the model and the data; nothing is written of it"
                    )
                value = round(sum(round(number, 6) for number in numbers) / len(numbers), 6)
                where = (task.metadata.name, split, cell.layer, cell.dim)
                rows.append(Score(shared.run, shared.step, *where, metric, value, cell.dtype))
    return rows


def keep_items(shared: Sweep, collector: Collector, result: TaskResult, cell: Measured) -> None:
    """Writes what the scores of a cell are made of, a file a split."""
    about = {
        "run": shared.run,
        "step": shared.step,
        "task": result.task_name,
        "layer": cell.layer,
        "dim": cell.dim,
        "dtype": cell.dtype,
        "weights": shared.revision,
        "data": result.dataset_revision,
        "mteb": result.mteb_version,
    }
    for split, items in collector.items(about, result).items():
        write_items(shared.items_file(result.task_name, cell, split), items)


def store(shared: Sweep, result: TaskResult, meta: ModelMeta) -> None:
    """Writes a result into mteb's tree so that it is there whole or not at all, its neighbours before it."""
    target = shared.cache.get_task_result_path(result.task_name, meta)
    with TemporaryDirectory(dir=shared.results, prefix=DRAFT) as folder:
        draft = mteb.ResultCache(folder)
        written = draft.get_task_result_path(result.task_name, meta)
        written.parent.mkdir(parents=True)
        settings = target.with_name("run_settings.jsonl")
        if settings.exists():  # mteb adds to it
            written.with_name(settings.name).write_bytes(settings.read_bytes())
        draft.save_to_cache(result, meta)
        target.parent.mkdir(parents=True, exist_ok=True)
        for name in ("model_meta.json", settings.name, target.name):
            owned.rename(written.with_name(name), target.with_name(name))


def _has_items(shared: Sweep, result: TaskResult, task: AbsTask, cell: Measured) -> bool:
    made_of = shared.revision, result.dataset_revision, str(result.mteb_version)
    files = (shared.items_file(result.task_name, cell, split) for split in task.eval_splits)
    return all(has_items(file, made_of) for file in files)


def _stored(cache: mteb.ResultCache, meta: ModelMeta, task: AbsTask) -> TaskResult | None:
    """The stored result of a cell if it is whole and of these data and this mteb, else None."""
    try:
        result = cache.load_task_result(task.metadata.name, meta)
    except ValueError:
        return None
    if result is None or result.get_missing_evaluations(task):
        return None
    current = (task.metadata.revision, version("mteb"))
    return result if (result.dataset_revision, result.mteb_version) == current else None
