"""The quality of every sub-model on every task, for the price of one encode per task.

Outer loop the tasks, inner loop the sub-models ("cells"): the first cell of a task encodes its texts at all
layers, the others are lookups, and mteb computes every metric. The results stand twice: in mteb's own tree
under `<folder>/mteb` (one model name, revision = weights hash, one experiments/ folder per cell, the full
cell at the standard path) and, flat, in `<folder>/scores.jsonl`. Everything runs in one process; sharding
over ranks, stores on disk and further dtypes would enter here and in bank.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from embedtrain.evaluate.bank import Encodes
from embedtrain.evaluate.progress import Tick
from embedtrain.evaluate.quiet import kept_random_state, quiet
from embedtrain.scores import append_scores, read_scores, write_scores
from embedtrain.types import InputError, Score, SubModel

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

    from embedtrain.evaluate.scoring import Sweep


def sweep(
    encoder: Encodes,
    tasks: Sequence[AbsTask],
    sub_models: Sequence[SubModel],
    *,
    run: str,
    step: int,
    revision: str,
    folder: Path,
    progress: Callable[[Tick], None] | None = None,
) -> list[Score]:
    """The scores of every sub-model on every task; per cell and split the main metric comes first.

    Values are mteb's, in mteb's units (0..1 for nearly all), rounded to six decimals as in its files; a
    task of several languages gives their mean. `revision` is the hash of the weights: results of other
    weights in the same folder are never served, and their lines of this (run, step) are removed from
    scores.jsonl. Called again, it computes only what is not yet there.

    Raises:
        InputError: no task, no sub-model, a layer or dim the model does not have, or a task whose data are
        missing.
    """
    subs = _checked(encoder, sub_models)
    if not tasks:
        raise InputError("no task to evaluate on; give at least one")
    with quiet(), kept_random_state():
        from embedtrain.evaluate.scoring import Sweep, score_task

        shared = Sweep(encoder, subs, run, step, revision, Path(folder) / "mteb", progress or _silent)
        file = Path(folder) / "scores.jsonl"
        _drop_outdated(file, shared, {task.metadata.name for task in tasks})
        found: list[Score] = []
        for task in tasks:
            for scores in score_task(shared, task):
                append_scores(file, scores)
                found += scores
    return found


def _drop_outdated(file: Path, shared: Sweep, tasks: set[str]) -> None:
    """Leaves in scores.jsonl what this sweep neither measures again nor contradicts.

    Of this (run, step), a line stays only if its cell is not swept now and mteb's tree has a result of the
    same weights for it.
    """

    def stays(score: Score) -> bool:
        sub = SubModel(score.layer, score.dim)
        if (score.run, score.step) != (shared.run, shared.step):
            return True
        swept = score.task in tasks and sub in shared.subs
        return not swept and shared.has_result(score.task, sub)

    if file.exists():
        write_scores(file, [score for score in read_scores(file) if stays(score)])


def _checked(encoder: Encodes, sub_models: Sequence[SubModel]) -> tuple[SubModel, ...]:
    if not sub_models:
        raise InputError("no sub-model to evaluate; give layers and dims")
    for sub in sub_models:
        if not 1 <= sub.layer <= encoder.num_layers:
            raise InputError(f"layer must be in 1..{encoder.num_layers}, got {sub.layer}")
        if not 1 <= sub.dim <= encoder.width:
            raise InputError(f"dim must be in 1..{encoder.width}, got {sub.dim}")
    return tuple(dict.fromkeys(sub_models))


def _silent(tick: Tick) -> None:
    """The progress callback of a sweep that shows none."""
