"""The parts of a training run, each from what a config says of it and from the parts before it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities.exceptions import MisconfigurationException  # type: ignore[attr-defined]

from embedtrain.data.entries import entries_of
from embedtrain.data.module import DataModule
from embedtrain.files.checkpoint_folder import StageFolder
from embedtrain.files.run_folder import RunFolder
from embedtrain.model.encoder import Encoder
from embedtrain.model.folder.export import check_sub_model
from embedtrain.model.gates import OwnGated
from embedtrain.model.pooling import GatedMean
from embedtrain.model.rotation.starts import MakesRotation, rotated_layers
from embedtrain.objective.plan import Plan
from embedtrain.settings.commands import TrainSettings
from embedtrain.settings.component import Component, built
from embedtrain.settings.stages import stages_of
from embedtrain.training.callbacks.stopping import StopRequest
from embedtrain.training.frozen import restrict_pooling
from embedtrain.training.loggers import continued, keep_lines
from embedtrain.training.steps.masked.step import Masked
from embedtrain.training.steps.protocol import MakesStep, Parts, Step
from embedtrain.training.trainer import make_trainer as trainer_of
from embedtrain.types import InputError, SubModel


def make_encoder(settings: TrainSettings) -> Encoder:
    """The backbone with its pooling and rotations."""
    gates = any(stage.settings.step.resolve() is not Masked for stage in stages_of(settings))
    encoder = pooled(settings.backbone, settings.pooling, gates=gates)
    if settings.rotation is not None:
        chosen: MakesRotation = settings.rotation.build()
        plans = [make_plan(stage.settings, encoder) for stage in stages_of(settings)]
        trained = {sub.layer for plan in plans for sub in plan.sub_models if sub.layer}
        layers = rotated_layers(chosen, trained, encoder.num_layers)
        encoder.rotate(chosen.rotation(layers, encoder.width, settings.seed, encoder.rotation))
    return encoder


def pooled(backbone: Component, pooling: Component | None, *, gates: bool = True) -> Encoder:
    """A backbone with a pooling: what the settings make of its size, or the folder's own.

    Args:
        backbone: what makes the encoder.
        pooling: what makes its pooling; None for the folder's own.
        gates: whether some step trains the gates that `pooling` may ask for.
    """
    if pooling is None or pooling.resolve() is not OwnGated:
        encoder: Encoder = backbone.build(pooling=None if pooling is None else pooling.build)
        return encoder
    chosen: OwnGated = pooling.build()
    encoder = backbone.build(pooling=None)
    if gates:
        chosen.apply(encoder)
    return encoder


def trains_gates(settings: TrainSettings, encoder: Encoder) -> bool:
    """Whether an encoder has gates that nobody asked for by name."""
    chosen = settings.pooling
    return chosen is not None and chosen.resolve() is OwnGated and isinstance(encoder.pooling, GatedMean)


def size_of(encoder: Encoder) -> dict[str, int]:
    """What plans and losses want to know of a model."""
    return {"num_layers": encoder.num_layers, "width": encoder.width}


def make_plan(settings: TrainSettings, encoder: Encoder) -> Plan:
    """The plan for an encoder."""
    plan: Plan = settings.plan.build(seed=settings.seed, **size_of(encoder))
    return plan


def restrict(encoder: Encoder, plan: Plan) -> None:
    """Let an encoder know what is trained of it."""
    encoder.trained = plan.sub_models
    restrict_pooling(encoder.pooling, plan)


def make_step(settings: TrainSettings, encoder: Encoder) -> Step:
    """What a run minimises and how its batches are made."""

    def group(name: str, **extra: Any) -> Any:  # noqa: ANN401 - what the group describes
        return built(getattr(settings, name), **extra)

    chosen: MakesStep = settings.step.build()
    return chosen.step(Parts(encoder, settings.seed, settings.gather, group))


def make_data(settings: TrainSettings, step: Step, run: RunFolder, folder: StageFolder) -> DataModule:
    """The rows, not yet read."""
    try:
        _require_root(settings)
        return DataModule(
            settings.data,
            max_epochs=settings.trainer.max_epochs,
            max_steps=settings.trainer.max_steps,
            seed=settings.seed,
            collate=step.collate,
            validation_collate=step.validation_collate,
            folder=run.reports.parent,
            stage=folder.name,
        )
    except InputError as error:
        raise InputError(f"data: {error}") from error


def _require_root(settings: TrainSettings) -> None:
    """Raise InputError where rows lie below a data root that is not there: a recipe says both by one name."""
    root = settings.evaluation.data_root
    if root is None or Path(root).exists():
        return
    sources = [str(entry.read["source"]) for entry in entries_of(settings.data.train)]
    if below := [source for source in sources if Path(source).is_relative_to(root)]:
        made = f"`python -m embedtrain.data.dictionary {root}` makes it"
        cure = made if Path(root).name == "dictionary" else "evaluation.data_root=DIR names yours"
        raise InputError(f"{below[0]}: there is no folder {root}, which evaluation.data_root names: {cure}")


def make_logger(settings: TrainSettings, folder: StageFolder) -> Logger | None:
    """The logger of the settings, which goes on where it was; None for metrics.jsonl alone."""
    if settings.logger is None:
        return None
    chosen = settings.logger if settings.overwrite else continued(settings.logger, folder.path)
    try:
        logger: Logger = chosen.build(save_dir=folder.path)
    except ImportError as error:
        name, reason = chosen.target.rpartition(".")[2], str(error).strip().splitlines()[0]
        raise InputError(
            f"logger: {name} lacks a package ({reason}). Install it, or use logger=files"
        ) from error
    except (MisconfigurationException, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"logger: {reason}. Choose another logger=NAME or other settings of it") from error
    if not settings.overwrite:
        keep_lines(logger)
    return logger


def make_trainer(settings: TrainSettings, folder: StageFolder, stop: StopRequest) -> pl.Trainer:
    """Lightning's Trainer with the logger of the settings."""
    logger = make_logger(settings, folder)
    loggers = [] if logger is None else [logger]
    return trainer_of(settings.trainer, folder=folder.path, loggers=loggers, stop=stop)


def cut_of(encoder: Encoder, pair: Sequence[int]) -> SubModel:
    """An entry of `exports`.

    Raises:
        InputError: if it is none, or the encoder has no such sub-model.
    """
    if len(pair) != 2:
        raise InputError(f"exports must be a list of [layer, dim], got {list(pair)}")
    return check_sub_model(encoder, SubModel(*pair))


def check_final_weights(settings: TrainSettings, data: DataModule) -> None:
    """Check that the run will have the weights that it is to end with.

    Raises:
        InputError: if nothing will say which weights are best.
    """
    if settings.final_weights == "best" and not (data.has_validation or settings.eval_during):
        raise InputError(
            "final_weights=best needs something to be best at: give data.validation_rows=N, "
            "data.validation_fraction or data.validation, or eval_during=sweep, or use final_weights=last"
        )
