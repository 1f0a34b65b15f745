"""The parts of a training run, each from what a config says of it and from the parts before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pytorch_lightning as pl

from embedtrain.data.module import DataModule
from embedtrain.files.run_folder import RunFolder
from embedtrain.model.encoder import Encoder
from embedtrain.model.folder.export import check_sub_model
from embedtrain.objective.plan import Plan
from embedtrain.settings.build import build
from embedtrain.train.callbacks.stopping import StopRequest
from embedtrain.train.frozen import restrict_pooling
from embedtrain.train.loggers import continued, keep_lines
from embedtrain.train.steps.protocol import MakesStep, Parts, Step
from embedtrain.types import InputError, SubModel

Config = Mapping[str, Any]  # `RunConfig` as plain containers


def part(config: Config, group: str, **extra: Any) -> Any:  # noqa: ANN401
    """What a group describes."""
    return build(config[group], group, **extra)


def optional(config: Config, group: str, **extra: Any) -> Any:  # noqa: ANN401
    """What a group describes, None where it is `none`."""
    return part(config, group, **extra) if config[group] else None


def make_encoder(config: Config) -> Encoder:
    """The backbone with its pooling: what the config makes of its size, or the folder's own."""
    chosen = config["pooling"]
    pooling = partial(build, chosen, "pooling") if chosen else None
    encoder: Encoder = part(config, "backbone", pooling=pooling)
    return encoder


def size_of(encoder: Encoder) -> dict[str, int]:
    """What plans and losses want to know of a model."""
    return {"num_layers": encoder.num_layers, "width": encoder.width}


def make_plan(config: Config, encoder: Encoder) -> Plan:
    """The plan for an encoder."""
    plan: Plan = part(config, "plan", seed=config["seed"], **size_of(encoder))
    return plan


def restrict(encoder: Encoder, plan: Plan) -> None:
    """Let an encoder know what is trained of it."""
    encoder.trained = plan.sub_models
    restrict_pooling(encoder.pooling, plan)


def make_step(config: Config, encoder: Encoder) -> Step:
    """What a run minimises and how its batches are made."""
    settings: MakesStep = part(config, "step")
    return settings.step(Parts(encoder, config["seed"], config["gather"], partial(optional, config)))


def make_data(config: Config, step: Step, folder: RunFolder) -> DataModule:
    """The rows, not yet read."""
    data: DataModule = part(
        config,
        "data",
        seed=config["seed"],
        collate=step.collate,
        validation_collate=step.validation_collate,
        folder=folder.path,
        max_epochs=config["trainer"].get("max_epochs", 1),
        max_steps=config["trainer"].get("max_steps"),
    )
    return data


def make_trainer(config: Config, folder: RunFolder, stop: StopRequest) -> pl.Trainer:
    """Lightning's Trainer with the logger of the config, which goes on where it was."""
    anew = config["overwrite"]
    node = config["logger"] if anew else continued(config["logger"], folder.path)
    logger = optional({"logger": node}, "logger", save_dir=folder.path)
    loggers = [] if logger is None else [logger]
    if loggers and not anew:
        keep_lines(logger)
    trainer: pl.Trainer = part(config, "trainer", folder=folder.path, loggers=loggers, stop=stop)
    return trainer


def cut_of(encoder: Encoder, pair: Sequence[int]) -> SubModel:
    """An entry of `exports`.

    Raises:
        InputError: if it is none, or the encoder has no such sub-model.
    """
    if len(pair) != 2:
        raise InputError(f"exports must be a list of [layer, dim], got {list(pair)}")
    return check_sub_model(encoder, SubModel(*pair))


def check_final_weights(config: Config, data: DataModule) -> None:
    """Nothing, if the weights that are wanted in the end can be had.

    Raises:
        InputError: if not.
    """
    wanted = config["final_weights"]
    if wanted not in ("last", "best"):
        raise InputError(f"final_weights must be last or best, got {wanted!r}")
    if wanted == "best" and not (data.has_validation or config["eval_during"]):
        raise InputError(
            "final_weights=best needs something to be best at: give data.validation_rows=N, "
            "data.validation_fraction or data.validation, or eval_during=sweep, or use final_weights=last"
        )
