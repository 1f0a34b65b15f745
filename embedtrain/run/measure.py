"""Scores of an encoder on a grid of cells, shared by the train and evaluate commands."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from embedtrain.console import Progress
from embedtrain.evaluation.catalogue.tasks import find_tasks
from embedtrain.evaluation.speed import BATCH, speeds
from embedtrain.evaluation.sweeping.funnel import Measured, sub_models_of
from embedtrain.evaluation.sweeping.sweep import check_cells, sweep
from embedtrain.evaluation.sweeping.workers import usable_workers
from embedtrain.evaluation.vectors.storage import IN_MEMORY, Keeping
from embedtrain.files.measured.cost import add_cost, read_cost
from embedtrain.files.scores import ModelFacts, add_tasks, claim_name
from embedtrain.model.encoder import Encoder
from embedtrain.model.folder.describe import weights_hash
from embedtrain.ranks import rank
from embedtrain.run.results.artefacts import MODELS, TASKS
from embedtrain.settings.commands import Measurement
from embedtrain.types import Cell, Dtype, Score, SubModel

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask


def grid(
    layers: Sequence[int] | None,
    dims: Sequence[int] | None,
    dtypes: Sequence[Dtype],
    trained: Sequence[SubModel],
) -> list[Cell]:
    """Every (layer, dim, dtype) of three lists; layers or dims that are None are those of the trained.

    Args:
        layers: of the cells.
        dims: of the cells.
        dtypes: of the cells.
        trained: the sub-models that a model was trained at.
    """
    every_layer = sorted({sub.layer for sub in trained} if layers is None else set(layers))
    every_dim = sorted({sub.dim for sub in trained} if dims is None else set(dims))
    return [Cell(layer, dim, dtype) for layer in every_layer for dim in every_dim for dtype in dtypes]


def check_measurement(encoder: Encoder, wanted: Measurement, trained: Sequence[SubModel]) -> None:
    """Check what would otherwise be known after hours: tasks, layers, dims, dtypes, and how they are scored.

    Raises:
        InputError: for what cannot be measured; missing data are not looked for.
    """
    if wanted.tasks:
        check_cells(encoder, grid(wanted.layers, wanted.dims, wanted.dtypes, trained))
        usable_workers(wanted.scoring_workers)
        find_tasks(wanted.tasks, wanted.data_root, wanted.languages)


def measure(
    encoder: Encoder,
    wanted: Measurement,
    cells: Sequence[Measured],
    *,
    run: str,
    step: int,
    folder: Path,
    tasks: Sequence[AbsTask] | None = None,
    keeping: Keeping = IN_MEMORY,
    mteb_name: str | None = None,
    source: str | None = None,
    show: bool = True,
) -> list[Score]:
    """The sweep's scores, with a bar on a terminal and a line per task elsewhere.

    Args:
        encoder: what is measured.
        wanted: `tasks`, `data_root` and how cells are scored, as in `EvaluateSettings`.
        cells: what is measured of it.
        run: the name its lines bear.
        step: optimiser steps it was trained.
        folder: where scores.jsonl and mteb/ are.
        tasks: what it is measured on; None for those that `wanted` names.
        keeping: where vectors are; in memory by default.
        mteb_name: of the model in mteb's tree; `run` when None.
        source: where the model comes from, of a folder that measures any; None in a run's own.
        show: whether the bar and the lines are wanted.

    Raises:
        InputError: if a task, a layer or a dim does not exist, another model has the name in the
            folder, or tasks failed (`IncompleteError`).
    """
    from embedtrain.evaluation.catalogue.sources import facts_of
    from embedtrain.evaluation.sweeping.adapter import Serving

    usable_workers(wanted.scoring_workers)
    found = tasks or find_tasks(wanted.tasks, wanted.data_root, wanted.languages)
    revision = weights_hash(encoder)
    if rank() == 0:
        if source is not None:
            claim_name(folder / MODELS, run, ModelFacts(source, revision))
        add_tasks(folder / TASKS, {task.metadata.name: facts_of(task) for task in found})
    with Progress() if show else nullcontext() as progress:
        return sweep(
            encoder,
            found,
            cells,
            run=run,
            step=step,
            revision=revision,
            folder=folder,
            progress=progress,
            serving=Serving(wanted.normalize, wanted.rescore_multiplier),
            workers=wanted.scoring_workers,
            keeping=keeping,
            mteb_name=mteb_name,
        )


def measure_speed(encoder: Encoder, cells: Sequence[Measured], *, run: str, folder: Path) -> None:
    """Write cost.jsonl: milliseconds a text of each layer of the cells; what is there already stays."""
    layers = sorted({sub.layer for cell in cells for sub in sub_models_of(cell)})
    there = {(line.layer, line.texts) for line in read_cost(folder) if line.run == run}
    lacking = [layer for layer in layers if not {(layer, 1), (layer, BATCH)} <= there]
    if rank() == 0 and lacking:
        add_cost(folder, speeds(encoder, lacking, run))
