"""What happens beside the steps of a stage: scores while it trains, and negatives mined anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from embedtrain.data.module import DataModule
from embedtrain.evaluation.catalogue.development import development_tasks
from embedtrain.evaluation.catalogue.tasks import load
from embedtrain.files import owned
from embedtrain.files.checkpoint_folder import StageFolder
from embedtrain.files.scores import main_scores
from embedtrain.mining.pipeline import check_size
from embedtrain.mining.refresh import Refresh, RefreshNegatives, Revised, texts_of
from embedtrain.model.encoder import Encoder
from embedtrain.model.rotation.starts import MakesRotation, axes, start_of
from embedtrain.run.measure import grid, measure
from embedtrain.settings.commands import TrainSettings
from embedtrain.training.callbacks.eval_during import ByTask, EvalDuring, MeasureWhileTraining
from embedtrain.training.callbacks.rotating import StartRotation
from embedtrain.training.callbacks.saving import saves_of
from embedtrain.types import Cell, Content, Dtype, InputError, Role, Score, SubModel

FOLDER = (
    "eval_during"  # in the folder of the stage; its scores.jsonl has lines of every step that was measured
)


def measure_while_training(
    during: EvalDuring,
    trainer: pl.Trainer,
    encoder: Encoder,
    folder: StageFolder,
    settings: TrainSettings,
    *,
    is_main: bool,
) -> None:
    """Let a stage be measured while it trains; its best weights are then decided by that, not by validation.

    Args:
        during: what, when, and what follows.
        trainer: gets the callback.
        encoder: what is measured.
        folder: of the stage.
        settings: of the stage; its `evaluation` says where data are and how cells are scored.
        is_main: whether this process is the one that measures.

    Raises:
        InputError: a task, layer, dim or dtype does not exist, data are missing or not for development, or
            no rank has the whole weights.
    """
    if settings.trainer.shard:
        raise InputError(
            "eval_during=sweep needs the whole weights on one rank: use it without trainer.shard"
        )
    evaluation = settings.evaluation
    cells = _cells(during, encoder)
    during.check_monitor(cells)
    tasks = []
    if is_main:
        tasks = development_tasks(
            during.tasks,
            evaluation.tasks,
            evaluation.data_root,
            evaluation.languages,
            allow_test=during.allow_test,
        )
        for task in tasks:
            load(task)  # now: missing data must not end a run after hours

    def take(step: int) -> ByTask:
        place = folder.path / FOLDER
        scores = measure(
            encoder, evaluation, cells, run=settings.name, step=step, folder=place, tasks=tasks, show=False
        )
        for folder_name in ("mteb", "items"):  # of weights that are gone with the next step
            owned.remove_tree(place / folder_name)
        return by_task(scores)

    saves = saves_of(trainer)
    saves.keeps_best = False
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    callbacks.insert(callbacks.index(saves), MeasureWhileTraining(during, take, folder.checkpoints))


def start_rotation(
    chosen: MakesRotation, data: DataModule, trainer: pl.Trainer, encoder: Encoder, seed: int
) -> None:
    """Let the rotation of an encoder begin, before the first step, at axes of the vectors of training texts.

    The texts are drawn by the seed from queries and positives, each with its own prompt; every rank encodes
    the same and takes the axes of the first.
    """

    def axes_of() -> dict[int, Tensor]:
        rotation = encoder.rotation
        assert rotation is not None
        vectors: dict[int, list[Tensor]] = {layer: [] for layer in rotation.layers}
        if chosen.start == "pca":
            for (role, prompt), texts in _sampled(data, chosen.sample, seed).items():
                found = encoder.encode(texts, rotation.layers, role, prompt=prompt)
                for layer, values in zip(found.layers, found.values, strict=True):
                    vectors[layer].append(values)
        return {
            layer: axes(
                start_of(chosen, layer, encoder.num_layers),
                torch.cat([torch.empty(0, encoder.width), *some]),
                seed + layer,
            )
            for layer, some in vectors.items()
        }

    trainer.callbacks.insert(0, StartRotation(encoder, axes_of))  # type: ignore[attr-defined]


def _sampled(data: DataModule, count: int, seed: int) -> dict[tuple[Role, str | None], list[Content]]:
    """Distinct contents of training rows by role and prompt, at most `count` in all, drawn by the seed."""
    rows = sum(len(item.store) for item in data.datasets)
    drawn = np.random.default_rng(seed).permutation(rows)[:count]
    groups: dict[tuple[Role, str | None], dict[Content, None]] = {}
    room = count
    for example in data.examples_at(np.sort(drawn).tolist()):
        sides: tuple[tuple[Role, str | None, Sequence[Content]], ...] = (
            ("query", example.prompts.query, [example.query]),
            ("document", example.prompts.document, example.positives[:1]),
        )
        for role, prompt, contents in sides:
            group = groups.setdefault((role, prompt), {})
            for content in contents:
                if room and content not in group:
                    group[content] = None
                    room -= 1
    return {key: list(group) for key, group in groups.items() if group}


def by_task(scores: list[Score]) -> dict[str, dict[Cell, float]]:
    """The main score of each task and cell, of several splits their mean."""
    every: dict[str, dict[Cell, list[float]]] = {}
    for score in main_scores(scores):
        cell = Cell(score.layer, score.dim, cast("Dtype", score.dtype))
        every.setdefault(score.task, {}).setdefault(cell, []).append(score.value)
    return {
        task: {cell: sum(values) / len(values) for cell, values in cells.items()}
        for task, cells in every.items()
    }


def _cells(during: EvalDuring, encoder: Encoder) -> list[Cell]:
    """The plan's sub-models, or the grid of the layers and dims that are given, in each dtype."""
    every = grid(during.layers, during.dims, during.dtypes, encoder.trained)
    for cell in every:
        if not (1 <= cell.layer <= encoder.num_layers and 1 <= cell.dim <= encoder.width):
            raise InputError(
                f"eval_during: there is no {cell.sub}; layers are 1..{encoder.num_layers}, "
                f"dims 1..{encoder.width}"
            )
    if during.layers is None and during.dims is None:
        return [cell for cell in every if cell.sub in encoder.trained]
    return every


def mine_while_training(
    refresh: Refresh, data: DataModule, trainer: pl.Trainer, encoder: Encoder, folder: Path, seed: int
) -> None:
    """Let a run mine: a callback of the trainer finds negatives, the data's batches carry them.

    Raises:
        InputError: when the rows bring a teacher's scores, which new negatives would not have; when there are
            too few documents, or batches are made too far ahead.
    """
    if "teacher" in data.offers:
        raise InputError(
            "mining=refresh exchanges negatives, and the rows have teacher_scores for those they bring: use "
            "mining=none, or rows without teacher_scores"
        )
    texts = texts_of(data.training_rows())
    check_size(texts.problems, refresh.selection)
    whole = SubModel(encoder.num_layers, encoder.width)

    def encode(given: Sequence[str], role: Role, prompt: str | None) -> NDArray[np.float32]:
        embeddings = encoder.encode(given, (whole.layer,), role, prompt=prompt)
        vectors: NDArray[np.float32] = embeddings.at(whole).float().numpy()
        return vectors

    mined, accumulate = folder / "mined", trainer.accumulate_grad_batches
    data.revise = Revised(mined, refresh, texts, accumulate=accumulate, ahead=data.ahead)
    # First of all callbacks: what is mined at a step is on disk before a checkpoint of that step can be.
    device = trainer.strategy.root_device
    mines = RefreshNegatives(refresh, texts, encode, mined, seed=seed, device=device)
    trainer.callbacks.insert(0, mines)  # type: ignore[attr-defined]
