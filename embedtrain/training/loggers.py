"""Loggers that go on where they were: a continued run is the same wandb run, TensorBoard folder or CSV file.

`<run folder>/loggers.json` holds the version of each logger by its class. Steps that a continued run takes
again stand twice there; metrics.jsonl, which is cut back, has them once.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import CSVLogger, WandbLogger
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from embedtrain.files import owned
from embedtrain.files.atomic import write_text
from embedtrain.settings.component import Component
from embedtrain.settings.signatures import signature_of
from embedtrain.training.metrics import FileLogger
from embedtrain.training.trackio_logger import TrackioLogger
from embedtrain.types import InputError

log = logging.getLogger(__name__)
VERSIONS = "loggers.json"
VERSION_KEYS = ("version", "run_id", "experiment_key")  # the first that a logger takes


def continued(logger: Component, folder: Path) -> Component:
    """A logger with the version that it had in this run folder unless it names one.

    A file that cannot be read is no reason to stop a run: it is said, and the logger starts anew.
    """
    file = folder / VERSIONS
    names = signature_of(logger.resolve()).names
    key = next((name for name in VERSION_KEYS if name in names), None)
    named = key is None or key in logger.settings or logger.settings.get("id") is not None
    if named or not file.exists():
        return logger
    try:
        version = json.loads(file.read_text("utf-8")).get(logger.target.rpartition(".")[2])
    except (OSError, ValueError, AttributeError, RecursionError):
        log.warning("%s cannot be read, so the logger does not go on where it was.", file)
        version = None
    return logger if version is None or key is None else logger.changed(**{key: version})


@rank_zero_only
def keep_lines(logger: Logger) -> None:
    """Let a CSVLogger add to the lines of its folder, which it would remove when it begins to write."""
    if not isinstance(logger, CSVLogger):
        return
    file = Path(logger.log_dir) / "metrics.csv"
    aside = file.with_name(".metrics.csv.kept")  # still there if a run was killed in between
    if file.exists():
        owned.rename(file, aside)
    if not aside.exists():
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*exists and is not empty")
        writer = logger.experiment
    owned.rename(aside, file)
    with file.open(encoding="utf-8") as lines:
        writer.metrics_keys = next(lines, "").strip().split(",")


class KeepVersions(pl.Callback):
    """Writes the versions of the loggers down as training starts."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / VERSIONS

    @rank_zero_only
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep what `continued` reads."""
        versions = {type(one).__name__: one.version for one in others(trainer)}
        if versions:
            write_text(self.file, json.dumps(versions) + "\n")


def others(trainer: pl.Trainer) -> list[Logger]:
    """The loggers beside metrics.jsonl."""
    return [logger for logger in trainer.loggers if not isinstance(logger, FileLogger)]


@rank_zero_only
def begin_loggers(trainer: pl.Trainer, facts: Mapping[str, Any]) -> None:
    """Open the loggers of a trainer that begins anew, and give them all settings as hyper-parameters.

    Raises:
        InputError: if one cannot begin: no key, no server.
    """
    for logger in others(trainer):
        try:
            logger.log_hyperparams(dict(facts))
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(
                f"logger: {type(logger).__name__} cannot begin ({reason}). logger=files writes files alone"
            ) from error


@rank_zero_only
def log_scores(trainer: pl.Trainer, scores: Mapping[str, float], step: int) -> None:
    """Give the loggers beside metrics.jsonl numbers of a step; what fails there is a warning."""
    for logger in others(trainer) if scores else ():
        try:
            logger.log_metrics(dict(scores), step)
            logger.save()
        except Exception as error:
            log.warning("%s did not take the final scores: %s", type(logger).__name__, error)


def end_loggers(trainer: pl.Trainer, *, exit_code: int) -> None:
    """End the wandb and trackio runs of a trainer: left open, they would take the metrics of the next."""
    for logger in others(trainer):
        if isinstance(logger, TrackioLogger):
            logger.end()
    run = getattr(sys.modules.get("wandb"), "run", None)
    ours = [logger.version for logger in others(trainer) if isinstance(logger, WandbLogger)]
    if run is not None and run.id in ours:
        run.finish(exit_code=exit_code)
