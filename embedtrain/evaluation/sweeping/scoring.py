"""One task: every cell scored by mteb. Importing this module imports mteb, which takes 4-5 seconds.

The first cell of a task encodes its texts, for all cells, and every rank goes through it in lock-step. The
others are lookups: each rank takes its share of them and spreads it over forked processes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence

import mteb
from mteb.abstasks import AbsTask
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from embedtrain.evaluation import mteb_private
from embedtrain.evaluation.catalogue.tasks import load
from embedtrain.evaluation.health.measured import health_of
from embedtrain.evaluation.map_points import map_of
from embedtrain.evaluation.per_item.collect import WRITES_NOTHING, Collector
from embedtrain.evaluation.sweeping.adapter import ServedCell
from embedtrain.evaluation.sweeping.funnel import Funnel, Measured, sub_models_of
from embedtrain.evaluation.sweeping.funnel_cell import FunnelCell
from embedtrain.evaluation.sweeping.results import Sweep, keep_items, rows_of, store
from embedtrain.evaluation.sweeping.workers import forked
from embedtrain.evaluation.vectors.bank import GridBank, NotHeldError
from embedtrain.files.measured.health import add_health
from embedtrain.files.measured.points import write_map
from embedtrain.files.reading import reason_of
from embedtrain.ranks import all_ranks, rank, world_size
from embedtrain.types import Cell, Score

logger = logging.getLogger(__name__)

FORKS_PAY = 2.0  # seconds of scoring that are left of a task; below, forking costs what it saves

Scored = tuple[Measured, list[Score]]


def score_task(shared: Sweep, task: AbsTask, pending: Sequence[Measured]) -> Iterator[Scored]:
    """The scores of these cells of one task, in their order but for what a bank could not hold at once.

    Every rank calls with the same cells and gets the scores of all.
    """
    counter = _Counter(task, shared, len(pending))
    layers = [sub.layer for cell in shared.cells for sub in sub_models_of(cell)]
    bank = GridBank(shared.encoder, layers, counter.encoded, shared.keeping, shared.revision, counter.stored)
    collector = Collector(task)
    loaded_before, looked_at = task.data_loaded, False
    _load_everywhere(task)
    try:
        while pending:
            first, rest = pending[0], pending[1:]
            bank.closed, bank.cells = False, tuple(cell for cell in pending if isinstance(cell, Cell))
            yield first, _measure(shared, collector, bank, first, keep=rank() == 0)
            counter.cells(1)
            if rank() == 0 and not looked_at:
                looked_at = True
                _look_at_vectors(shared, task, bank)
            pending = []
            for cell, scores in _lookups(shared, collector, bank, rest):
                if scores is None:
                    pending.append(cell)
                    continue
                yield cell, scores
                counter.cells(1)
    finally:
        if task.data_loaded and not loaded_before:
            task.unload_data()


def _look_at_vectors(shared: Sweep, task: AbsTask, bank: GridBank) -> None:
    """Write health.jsonl, and the map of a retrieval task, of a task whose texts are encoded.

    Whatever fails here is logged: scores never depend on it, and other ranks wait for this one.
    """
    subs = list(dict.fromkeys(sub for cell in shared.cells for sub in sub_models_of(cell)))
    try:
        lines = health_of(task, bank, subs, run=shared.run, step=shared.step, weights=shared.revision)
        add_health(shared.results.parent, lines)
        found = map_of(task, bank, max(subs), run=shared.run, step=shared.step)
        if found is not None:
            write_map(shared.results.parent, *found)
    except Exception as error:
        logger.warning("%s: no health or map of its vectors: %s", task.metadata.name, reason_of(error))


def _lookups(
    shared: Sweep, collector: Collector, bank: GridBank, cells: Sequence[Measured]
) -> Iterator[tuple[Measured, list[Score] | None]]:
    """The scores of cells whose vectors are there, None where they are not; of all ranks."""

    def measure(cell: Measured) -> list[Score] | None:
        try:
            return _measure(shared, collector, bank, cell)
        except NotHeldError:
            return None

    bank.closed = True
    share = cells[rank() :: world_size()]
    if world_size() == 1:
        yield from _spread(measure, share, shared.workers)
        return
    mine: dict[Measured, list[Score] | None] = {}
    error: str | None = None
    try:
        mine.update(_spread(measure, share, shared.workers))
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    gathered = all_ranks((mine, error))
    scored = {cell: scores for part, _ in gathered for cell, scores in part.items()}
    yield from ((cell, scored[cell]) for cell in cells if cell in scored)
    errors = [f"rank {number}: {error}" for number, (_, error) in enumerate(gathered) if error is not None]
    if errors:
        raise RuntimeError("; ".join(errors))


def _spread(
    measure: Callable[[Measured], list[Score] | None], cells: Sequence[Measured], workers: int
) -> Iterator[tuple[Measured, list[Score] | None]]:
    """Each cell measured: the first here, to see what one takes, the others in processes if that pays."""
    for position, cell in enumerate(cells):
        begun = time.monotonic()
        yield cell, measure(cell)
        left = cells[position + 1 :]
        if workers > 1 and len(left) > 1 and (time.monotonic() - begun) * len(left) > FORKS_PAY:
            yield from forked(measure, left, workers)
            return


def _measure(
    shared: Sweep, collector: Collector, bank: GridBank, cell: Measured, *, keep: bool = True
) -> list[Score]:
    """The scores of one cell; with `keep` its result is in mteb's tree before they are returned.

    What the scores are made of is kept before the result, so that a cell with a result has both.
    """
    task, meta = collector.task, shared.meta(cell)
    served = (
        FunnelCell(bank, cell, meta, shared.serving)
        if isinstance(cell, Funnel)
        else ServedCell(bank, cell, meta, shared.serving)
    )
    mteb_private.seed(task)  # clustering draws its samples from the task's generators
    # scikit-learn on two threads of a busy machine takes up to 20 times its own work
    with threadpool_limits(1), mteb_private.scored_on_the_cpu(), collector.during():
        evaluated = mteb.evaluate(
            served,
            task,
            co2_tracker=False,
            cache=None,
            show_progress_bar=False,
            prediction_folder=WRITES_NOTHING,
        )
    result = evaluated.task_results[0]
    if isinstance(served, FunnelCell):
        served.add_cost(result)
    rows = rows_of(result, task, shared, cell)
    if keep:
        keep_items(shared, collector, result, cell)
        store(shared, result, meta)
    return rows


def _load_everywhere(task: AbsTask) -> None:
    """Loads the data on every rank, or on none: a rank without them would leave the others waiting."""
    error: Exception | None = None
    if not task.data_loaded:
        try:
            load(task)
        except Exception as raised:
            error = raised
    said = [text for text in all_ranks(None if error is None else str(error)) if text is not None]
    if error is not None:
        raise error
    if said:
        raise RuntimeError(f"another rank could not load the data: {said[0]}")


class _Counter:
    """Counts one task's cells and texts, and reports them."""

    def __init__(self, task: AbsTask, shared: Sweep, pending: int) -> None:
        self._task, self._report = task.metadata.name, shared.progress
        self._cells = len(shared.cells_of(task))
        self._done, self._texts = self._cells - pending, {"encoded": 0, "found in the store": 0}
        self.cells(0)

    def encoded(self, texts: int) -> None:
        self._texts["encoded"] = texts
        self.cells(0)

    def stored(self, texts: int) -> None:
        self._texts["found in the store"] = texts
        self.cells(0)

    def cells(self, more: int) -> None:
        self._done += more
        said = [f"{count:,} texts {where}" for where, count in self._texts.items() if count]
        self._report(self._task, self._done, self._cells, ", ".join(said) or "nothing to encode")
