"""Scores of a merged model, its base and its ingredients on one grid, and how they compare."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from embedtrain import console
from embedtrain.evaluation.catalogue.tasks import find_tasks
from embedtrain.evaluation.comparing.families import correct
from embedtrain.evaluation.comparing.grids import compare_grids
from embedtrain.evaluation.comparing.runs import Run, at_step, read_run
from embedtrain.evaluation.comparing.statistics import Settings, verdict
from embedtrain.evaluation.per_item.stored import has_items, items_file
from embedtrain.files.measured.merge import Compared
from embedtrain.model.folder.describe import weights_hash
from embedtrain.run.measure import measure
from embedtrain.run.merging.ingredients import Ingredient, Ingredients
from embedtrain.settings.commands import EvaluationSettings
from embedtrain.types import Cell, InputError

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

RESAMPLING = Settings(resamples=1000)
ALPHA = 0.05


class Grid(NamedTuple):
    """What all models are measured on."""

    wanted: EvaluationSettings
    cells: Sequence[Cell]
    folder: Path  # of the merged run
    name: str
    step: int  # of its scores


def measured_on(settings: EvaluationSettings, ingredients: Ingredients) -> EvaluationSettings:
    """The settings, or where they name no task what the first run was measured on that was measured."""
    recorded = (one.record.part("evaluation") for one in ingredients.every if one.record is not None)
    known = {name: None for name in EvaluationSettings.__dataclass_fields__}
    before = next((part for part in recorded if part.get("tasks")), None)
    if settings.tasks or before is None:
        return settings
    return EvaluationSettings(**{key: value for key, value in before.items() if key in known})


def measure_merged(
    grid: Grid, ingredients: Ingredients, merged: Mapping[str, Tensor]
) -> tuple[float | None, list[Compared | None]]:
    """The mean score of the merged model, and it against each ingredient, p corrected over these.

    Raises:
        InputError: for what cannot be measured.
        IncompleteError: if a task could not be scored.
    """
    encoder, tasks = (
        ingredients.encoder,
        find_tasks(grid.wanted.tasks, grid.wanted.data_root, grid.wanted.languages),
    )
    if grid.wanted.before and ingredients.base is not None:
        console.log("measuring the base")
        encoder.load_state_dict(ingredients.base)
        _measure(grid, ingredients, tasks, grid.name, 0, grid.folder)
    found = []
    for number, one in enumerate(ingredients.every, 1):
        encoder.load_state_dict(one.weights)
        found.append(_run_of(grid, ingredients, one, number, tasks))
    console.log("measuring the merged model")
    encoder.load_state_dict(merged)
    _measure(grid, ingredients, tasks, grid.name, grid.step, grid.folder)
    own = at_step(grid.folder, grid.step, grid.name)
    score = fmean(fmean(own.scores[key][cell].value for cell in grid.cells) for key in own.scores)
    return score, _compared(found, own, grid.cells)


def _compared(others: Sequence[Run], own: Run, cells: Sequence[Cell]) -> list[Compared | None]:
    """Each ingredient; none where a task keeps no items."""
    try:
        found = [compare_grids(one, own, cells, RESAMPLING) for one in others]
    except InputError as error:
        console.log(f"not compared with the ingredients: {error}")
        return [None for _ in others]
    corrected = correct([each.p for each in found], "holm")
    return [
        Compared(each.first, each.difference, each.low, each.high, p, verdict(each.difference, p, ALPHA))
        for each, p in zip(found, corrected, strict=True)
    ]


def _run_of(
    grid: Grid, ingredients: Ingredients, one: Ingredient, number: int, tasks: Sequence[AbsTask]
) -> Run:
    """The scores of an ingredient: those of its own folder where they are of all this, else measured here."""
    revision = weights_hash(ingredients.encoder)
    if (own := _scored(grid, one, revision, tasks)) is not None:
        return own
    console.log(f"measuring {one.name}")
    folder = grid.folder / "ingredients" / f"{number}_{re.sub(r'[^A-Za-z0-9_.-]+', '-', one.name)}"
    _measure(grid, ingredients, tasks, one.name, 1, folder)
    return at_step(folder, 1, one.name)


def _scored(grid: Grid, one: Ingredient, revision: str, tasks: Sequence[AbsTask]) -> Run | None:
    """What a run measured of itself, of these weights, data, cells and this mteb; None if anything lacks."""
    try:
        run = read_run(str(one.folder))
    except InputError:
        return None
    keys = [(task.metadata.name, split) for task in tasks for split in task.eval_splits]
    if any(cell not in run.scores.get(key, {}) for key in keys for cell in grid.cells):
        return None
    for task in tasks:
        made_of = revision, task.metadata.revision, version("mteb")
        files = (
            items_file(one.folder, task.metadata.name, step=run.step, cell=str(cell), split=split)
            for split in task.eval_splits
            for cell in grid.cells
        )
        if not all(has_items(file, made_of) for file in files):
            return None
    return run._replace(name=one.name, scores={key: run.scores[key] for key in keys})


def _measure(
    grid: Grid, ingredients: Ingredients, tasks: Sequence[AbsTask], name: str, step: int, folder: Path
) -> None:
    measure(
        ingredients.encoder, grid.wanted, grid.cells, run=name, step=step, folder=folder, tasks=tasks,
        mteb_name=name if step else f"{name}_untouched",
    )  # fmt: skip
