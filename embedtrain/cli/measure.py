"""Scores of an encoder on a grid of sub-models, shared by the train and evaluate commands."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from rich.console import Console

from embedtrain.evaluate.progress import SweepBar, Tick
from embedtrain.evaluate.sweep import sweep
from embedtrain.evaluate.tasks import find_tasks
from embedtrain.model.describe import weights_hash
from embedtrain.model.encoder import Encoder
from embedtrain.types import Score, SubModel

log = logging.getLogger(__name__)


def grid(
    layers: Sequence[int] | None, dims: Sequence[int] | None, trained: Sequence[SubModel]
) -> list[SubModel]:
    """Every (layer, dim) of the two lists; one that is not given holds what the trained sub-models have."""
    layers = sorted({sub.layer for sub in trained} if layers is None else set(layers))
    dims = sorted({sub.dim for sub in trained} if dims is None else set(dims))
    return [SubModel(layer, dim) for layer in layers for dim in dims]


def measure(
    encoder: Encoder,
    tasks: Sequence[str],
    data_root: str | None,
    sub_models: Sequence[SubModel],
    *,
    run: str,
    step: int,
    folder: Path,
) -> list[Score]:
    """The sweep's scores, with a bar on a terminal and a line per task elsewhere.

    Raises:
        InputError: if a task, its data, a layer or a dim does not exist.
    """
    found = find_tasks(tasks, None if data_root is None else Path(data_root))
    bar = SweepBar(Console(stderr=True)) if sys.stderr.isatty() else None
    with bar or nullcontext():
        return sweep(
            encoder,
            found,
            sub_models,
            run=run,
            step=step,
            revision=weights_hash(encoder),
            folder=folder,
            progress=bar or _log_tick,
        )


def _log_tick(tick: Tick) -> None:
    if tick.cells_done == tick.cells:
        log.info("%s: %d sub-models, %d texts encoded once", tick.task, tick.cells, tick.texts)
