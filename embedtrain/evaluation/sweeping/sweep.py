"""The quality of every cell (layer, dim, dtype) on every task, for the price of one encode per task.

Outer loop the tasks, the longest first, inner loop the cells: the first cell of a task encodes its texts at
all layers, the others are lookups, and mteb computes every metric. Results are written twice: in mteb's own
tree under `<folder>/mteb` (one model name, revision = weights hash, one experiments/ folder per cell, the
full float32 cell at the standard path) and, flat, in `<folder>/scores.jsonl`.

A cell is in the tree before its lines are in scores.jsonl, and whole in both. Whatever stops a sweep, called
again it reads what the tree has and measures the rest. Several ranks share the work and one folder.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from embedtrain.evaluation.catalogue.texts import shipped_texts
from embedtrain.evaluation.mteb_private import same_random_state, silenced
from embedtrain.evaluation.sweeping.funnel import Measured, measured_as, sub_models_of
from embedtrain.evaluation.sweeping.workers import usable_workers
from embedtrain.evaluation.vectors.bank import Encodes
from embedtrain.evaluation.vectors.storage import Keeping
from embedtrain.files import owned
from embedtrain.files.atomic import is_disk_full
from embedtrain.files.scores import append_scores, read_scores, write_scores
from embedtrain.ranks import all_ranks, rank
from embedtrain.types import DTYPES, Cell, InputError, Score

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

    from embedtrain.evaluation.sweeping.adapter import Serving
    from embedtrain.evaluation.sweeping.results import Progress, Sweep

logger = logging.getLogger(__name__)

Found = dict[str, dict[Measured, list[Score]]]  # task -> cell -> its lines


class Failure(NamedTuple):
    """A task that could not be scored."""

    task: str
    error: str


class IncompleteError(InputError):
    """Some tasks of a sweep failed; the others are scored. The message names each and its error."""

    def __init__(self, failures: Sequence[Failure], scores: Sequence[Score], tasks: int) -> None:
        listed = "".join(f"\n  {task}: {error}" for task, error in failures)
        super().__init__(
            f"{len(failures)} of {tasks} tasks failed; the same command tries them again and keeps what "
            f"is scored:{listed}"
        )
        self.failures, self.scores, self.tasks = tuple(failures), tuple(scores), tasks

    def __reduce__(self) -> tuple[type[IncompleteError], tuple[object, ...]]:
        return IncompleteError, (self.failures, self.scores, self.tasks)


def sweep(
    encoder: Encodes,
    tasks: Sequence[AbsTask],
    cells: Sequence[Measured],
    *,
    run: str,
    step: int,
    revision: str,
    folder: Path,
    progress: Progress | None = None,
    serving: Serving | None = None,
    workers: int | None = None,
    keeping: Keeping | None = None,
    mteb_name: str | None = None,
) -> list[Score]:
    """The scores of every cell on every task, in that order; per cell and split the main metric comes first.

    Values are mteb's, in mteb's units (0..1 for nearly all), rounded to six decimals as in its files; a
    task of several languages gives their mean. `revision` is the hash of the weights: results of other
    weights in the same folder are never served, and their lines of this (run, step) are removed from
    scores.jsonl. Called again, it computes only what is not yet there. `workers` processes score at once,
    by default one a core and at most 4; `keeping` says where vectors are, by default in memory. `mteb_name`
    names the model in mteb's tree, where other weights than those of a run's scores need their own name.

    Raises:
        InputError: no task, no cell, a layer, dim or dtype that does not exist, a full disk.
        IncompleteError: tasks failed, their data missing for instance; raised once all others are scored.
    """
    cells = check_cells(encoder, cells)
    workers = usable_workers(workers)
    if not tasks:
        raise InputError("no task to evaluate on; give at least one")
    with silenced(), same_random_state():
        from embedtrain.evaluation.sweeping.adapter import Serving
        from embedtrain.evaluation.sweeping.results import Sweep

        results = Path(folder) / "mteb"
        results.mkdir(parents=True, exist_ok=True)
        shared = Sweep(
            encoder,
            cells,
            run,
            step,
            revision,
            results,
            progress or (lambda *_: None),
            serving or Serving(),
            workers,
            keeping or Keeping(),
            mteb_name or run,
        )
        try:
            return _sweep(shared, tasks, Path(folder) / "scores.jsonl")
        except OSError as error:
            if not is_disk_full(error):
                raise
            raise InputError(
                f"{folder}: the disk is full; free some space and run the same command again, which keeps "
                "the finished cells"
            ) from error


def _sweep(shared: Sweep, tasks: Sequence[AbsTask], file: Path) -> list[Score]:
    from embedtrain.evaluation.sweeping.results import DRAFT, finished, set_other_weights_apart

    is_first = rank() == 0
    if is_first:
        set_other_weights_apart(shared)
    found: Found = {task.metadata.name: finished(shared, task) if is_first else {} for task in tasks}
    found = all_ranks(found)[0]  # what rank 0 sees: file systems show others late what it wrote
    others: list[Score] = []
    if is_first:
        for left in shared.results.glob(f"{DRAFT}*"):  # what a killed sweep was writing
            if owned.unknown(left, re.compile(r".+\.jsonl?").fullmatch) is None:
                owned.remove_tree(left)
        others = _others(file, shared, {task.metadata.name for task in tasks})
        _write(file, [*others, *_in_order(found, tasks, shared)])
    failures = _measure_missing(shared, tasks, found, file)
    scores = _in_order(found, tasks, shared)
    if is_first:
        _write(file, [*others, *scores])
    if failures:
        raise IncompleteError(failures, scores, len(tasks))
    return scores


def _measure_missing(shared: Sweep, tasks: Sequence[AbsTask], found: Found, file: Path) -> list[Failure]:
    """Adds what `found` lacks, to it and to the file; what failed, unless the disk is full."""
    from embedtrain.evaluation.sweeping.scoring import score_task

    failures: list[Failure] = []
    for task in longest_first(tasks):
        name, wanted = task.metadata.name, shared.cells_of(task)
        pending = [cell for cell in wanted if cell not in found[name]]
        if not pending:
            shared.progress(name, len(wanted), len(wanted), "nothing to encode")
            continue
        try:
            for cell, scores in score_task(shared, task, pending):
                found[name][cell] = scores
                if rank() == 0:
                    append_scores(file, scores)
        except Exception as error:
            if is_disk_full(error):
                raise
            failures.append(_failure(name, error))
    return failures


def _in_order(found: Found, tasks: Sequence[AbsTask], shared: Sweep) -> list[Score]:
    """The lines of all cells: tasks and cells as asked for, however they were measured."""
    return [
        score for task in tasks for cell in shared.cells for score in found[task.metadata.name].get(cell, ())
    ]


def _failure(task: str, error: Exception) -> Failure:
    """What is said of a task that failed; the place of an error that nobody foresaw is logged."""
    foreseen = isinstance(error, InputError)
    text = str(error) if foreseen else f"{type(error).__name__}: {error}"
    logger.error("task %s failed, the others go on: %s", task, text, exc_info=None if foreseen else error)
    return Failure(task, text.splitlines()[0] if text else text)


def _others(file: Path, shared: Sweep, tasks: set[str]) -> list[Score]:
    """The lines of scores.jsonl that this sweep neither measures again nor contradicts.

    Of this (run, step), a line stays only if its cell is not swept now and mteb's tree has a result of the
    same weights for it.
    """

    def stays(score: Score) -> bool:
        if (score.run, score.step) != (shared.run, shared.step):
            return True
        cell = measured_as(score.layer, score.dim, score.dtype)
        if cell is None:
            return False
        swept = score.task in tasks and cell in shared.cells
        return not swept and shared.has_result(score.task, cell)

    return [score for score in read_scores(file) if stays(score)]


def _write(file: Path, scores: Sequence[Score]) -> None:
    """Makes the file hold these lines, if it does not."""
    if not file.exists() or not file.read_bytes().endswith(b"\n") or read_scores(file) != list(scores):
        write_scores(file, scores)


def check_cells(encoder: Encodes, cells: Sequence[Measured]) -> tuple[Measured, ...]:
    """The cells, each once. Raises InputError when there are none, or one that the encoder does not have."""
    if not cells:
        raise InputError("no sub-model to evaluate; give layers and dims")
    for sub in (sub for cell in cells for sub in sub_models_of(cell)):
        if not 1 <= sub.layer <= encoder.num_layers:
            raise InputError(f"layer must be in 1..{encoder.num_layers}, got {sub.layer}")
        if not 1 <= sub.dim <= encoder.width:
            raise InputError(f"dim must be in 1..{encoder.width}, got {sub.dim}")
    for cell in cells:
        if isinstance(cell, Cell) and cell.dtype not in DTYPES:
            raise InputError(f"dtype must be one of {', '.join(DTYPES)}, got {cell.dtype!r}")
    return tuple(dict.fromkeys(cells))


def longest_first(tasks: Sequence[AbsTask]) -> list[AbsTask]:
    """The tasks by the characters they hold, most first; those of unknown size before all others."""
    return sorted(tasks, key=lambda task: -characters(task))


def characters(task: AbsTask) -> float:
    """About how many characters a task has: by the statistics mteb ships, or by the size of local files."""
    files: Mapping[str, tuple[Path, ...]] | None = getattr(task, "files", None)
    if files:
        return float(sum(_file_bytes(path) for parts in files.values() for path in parts))
    statistics = task.metadata.descriptive_stats
    return (
        float(sum(shipped_texts(split)[1] for split in statistics.values())) if statistics else float("inf")
    )


def _file_bytes(path: Path) -> int:
    if path.is_dir():
        return sum(part.stat().st_size for part in path.rglob("*.arrow"))
    return path.stat().st_size if path.exists() else 0
