"""Loggers that go on where they were: a continued run is the same wandb run, TensorBoard folder or CSV file.

`<run folder>/loggers.json` holds the version of each logger by its class. Steps that a continued run takes
again stand twice there; metrics.jsonl, which is cut back, has them once.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.loggers import CSVLogger, WandbLogger
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from embedtrain.files.atomic import write_text
from embedtrain.settings.component import Component
from embedtrain.training.metrics import FileLogger

log = logging.getLogger(__name__)
VERSIONS = "loggers.json"


def continued(logger: Component, folder: Path) -> Component:
    """A logger with the version that it had in this run folder unless it names one.

    A file that cannot be read is no reason to stop a run: it is said, and the logger starts anew.
    """
    file = folder / VERSIONS
    named = "version" in logger.settings or logger.settings.get("id") is not None
    if named or not file.exists():
        return logger
    try:
        version = json.loads(file.read_text("utf-8")).get(logger.target.rpartition(".")[2])
    except (OSError, ValueError, AttributeError, RecursionError):
        log.warning("%s cannot be read, so the logger does not go on where it was.", file)
        version = None
    return logger if version is None else logger.changed(version=version)


@rank_zero_only
def keep_lines(logger: Logger) -> None:
    """Let a CSVLogger add to the lines of its folder, which it would remove when it begins to write."""
    if not isinstance(logger, CSVLogger):
        return
    file = Path(logger.log_dir) / "metrics.csv"
    aside = file.with_name(".metrics.csv.kept")  # still there if a run was killed in between
    if file.exists():
        file.replace(aside)
    if not aside.exists():
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*exists and is not empty")
        writer = logger.experiment
    aside.replace(file)
    with file.open(encoding="utf-8") as lines:
        writer.metrics_keys = next(lines, "").strip().split(",")


class KeepVersions(pl.Callback):
    """Writes the versions of the loggers down as training starts, and ends the wandb run with it.

    A wandb run that is left open would take the metrics of the next run in this process.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / VERSIONS

    @rank_zero_only
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep what `continued` reads."""
        versions = {
            type(one).__name__: one.version for one in trainer.loggers if not isinstance(one, FileLogger)
        }
        if versions:
            write_text(self.file, json.dumps(versions) + "\n")

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """End the wandb run."""
        _finish(trainer, exit_code=0)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """End the wandb run as one that failed."""
        _finish(trainer, exit_code=1)


def _finish(trainer: pl.Trainer, *, exit_code: int) -> None:
    run = getattr(sys.modules.get("wandb"), "run", None)
    ours = [logger.version for logger in trainer.loggers if isinstance(logger, WandbLogger)]
    if run is not None and run.id in ours:
        run.finish(exit_code=exit_code)
