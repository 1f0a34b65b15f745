"""What happens around steps: checkpoints, progress, and speed."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from signal import Signals
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, Checkpoint

from embedtrain import console
from embedtrain.files.checkpoint_folder import CheckpointFolder
from embedtrain.files.owned import Place
from embedtrain.ranks import all_ranks
from embedtrain.training.callbacks.stopping import Stopped, StopRequest
from embedtrain.training.metrics import FileLogger
from embedtrain.training.module import TrainModule
from embedtrain.types import InputError
from embedtrain.whole_step import whole_step

log = logging.getLogger(__name__)
READ_SECONDS = 1.0  # between two looks at the loss: each waits for the device


class SaveCheckpoints(Checkpoint):
    """Saves every `every` optimiser steps, at the end and when asked to stop; and the highest val/mean.

    With `keeps_best` false, somebody else decides what is best.

    Args:
        folder: where they go.
        every: optimiser steps between saves, at least 1.
        stop: what signals asked for.
    """

    def __init__(self, folder: CheckpointFolder, every: int = 500, stop: StopRequest | None = None) -> None:
        self.folder, self.every, self.best_value = folder, every, -math.inf
        self.stop = StopRequest() if stop is None else stop
        self.keeps_best = True
        self.on_save: Callable[[], object] = lambda: None  # after a checkpoint is there

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let validation follow whole optimiser steps only: between two of them nothing can be saved."""
        if trainer.val_check_batch is not None:
            steps = max(1, int(trainer.val_check_batch) // trainer.accumulate_grad_batches)
            trainer.val_check_batch = steps * trainer.accumulate_grad_batches
        if isinstance(pl_module, TrainModule):
            pl_module.tell = self.stop.sent
        self.stop.listen()
        self.stop.defer = True

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object) -> None:
        """Save when due; where validation comes next, after it: a resumed run would not repeat it.

        Several ranks ask each other where the module looks at its losses, so that they wait for the device
        once; a signal that comes after that is obeyed a step later.

        Raises:
            Stopped: when that was asked for, after saving.
        """
        interval = trainer.val_check_batch
        done = trainer.fit_loop.batch_idx + 1
        validates = interval is not None and trainer.enable_validation and done % interval == 0
        if whole_step(trainer) and not validates:
            told = pl_module.told if isinstance(pl_module, TrainModule) else None
            self._save_if_due(trainer, self.stop.agreed(told))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the weights if they are the best so far; save when due.

        Raises:
            Stopped: when that was asked for, after saving.
        """
        value = trainer.callback_metrics.get("val/mean")
        if self.keeps_best and value is not None and float(value) > self.best_value:
            self.best_value = float(value)
            trainer.save_checkpoint(self.folder.best, weights_only=True)
        counts = self.stop.sent(trainer.strategy.root_device)
        self._save_if_due(trainer, self.stop.agreed(None if counts is None else counts.tolist()))

    def _save_if_due(self, trainer: pl.Trainer, asked: Signals | None) -> None:
        if asked or trainer.global_step % self.every == 0:
            self._save(trainer)
        if asked:
            raise Stopped(asked, trainer.global_step)

    def _save(self, trainer: pl.Trainer) -> None:
        for logger in trainer.loggers:
            logger.save()  # first: steps before a checkpoint are not taken again, nor their lines written
        path = self.folder.at(trainer.global_step)
        trainer.save_checkpoint(path)
        if trainer.is_global_zero:
            self.folder.keep(path)
            self.on_save()

    def on_train_end(self, trainer: pl.Trainer, *_: object) -> None:
        """Save the final state."""
        self._save(trainer)
        self.stop.defer = False

    def on_exception(self, *_: object) -> None:
        """Let later signals end what follows at once."""
        self.stop.defer = False

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs."""
        return {"best_value": self.best_value}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.best_value = float(state_dict["best_value"])


def saves_of(trainer: pl.Trainer) -> SaveCheckpoints:
    """What saves the checkpoints of a trainer."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return next(item for item in callbacks if isinstance(item, SaveCheckpoints))


class FolderStays(Callback):
    """Ends a run whose folder was renamed or removed: it would go on into a folder that nobody finds.

    Args:
        folder: of the stage; made as training starts.

    Attributes:
        places: folders that must stay.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.places: list[Place] = []

    def on_train_start(self, trainer: pl.Trainer, *_: object) -> None:
        """Know the folder."""
        if trainer.is_global_zero:
            self.check()
            self.folder.mkdir(parents=True, exist_ok=True)
            self.places.append(Place(self.folder))

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        """Look again.

        Raises:
            InputError: if it is not there, or another one is.
        """
        if trainer.is_global_zero and whole_step(trainer):
            self.check()

    def on_validation_end(self, trainer: pl.Trainer, *_: object) -> None:
        """Look again, before anything is saved."""
        if trainer.is_global_zero:
            self.check()

    def check(self) -> None:
        """Raise InputError if a folder is not what it was."""
        for place in self.places:
            place.check()


def stays_of(trainer: pl.Trainer) -> FolderStays:
    """What watches the folder of a trainer."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return next(item for item in callbacks if isinstance(item, FolderStays))


class StepMetrics(Callback):
    """Cuts metrics.jsonl back to where a resumed run starts, and has each step's line written.

    As a callback, since those come before the hooks of the module: a checkpoint, which Lightning lets come
    last of all callbacks, must not be ahead of the lines of its steps.
    """

    def __init__(self) -> None:
        self._begun = self._spent = 0.0  # seconds
        self._steps = 0  # since the line before

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drop lines of steps that will be taken again.

        Raises:
            InputError: if the ranks do not start at the same step.
        """
        starts = all_ranks(trainer.global_step)
        if len(set(starts)) > 1:
            raise InputError(
                f"the ranks would start at the steps {starts}: not all of them see the same checkpoints. "
                "output_root must be a folder that all machines share"
            )
        for logger in trainer.loggers:
            if isinstance(logger, FileLogger):
                logger.forget_after(trainer.global_step)
        if trainer.global_step:
            log.info("resuming at step %d", trainer.global_step)

    def on_train_batch_start(self, *_: object) -> None:
        """Take the time: loading, validation and saving are between batches."""
        self._begun = time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object) -> None:
        """Write the line of a whole step, if it is one of those that are written."""
        self._spent += time.monotonic() - self._begun
        if not whole_step(trainer):
            return
        self._steps += 1
        due = trainer.global_step % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
        if due and isinstance(pl_module, TrainModule):
            facts = pl_module.facts() | {"train/seconds_per_step": self._spent / self._steps}
            self._spent, self._steps = 0.0, 0
            for logger in trainer.loggers:
                logger.log_metrics(facts, trainer.global_step - 1)


class TrainingProgress(Callback):
    """Shows loss, pairs per second and time left, and notes the speed as a metric."""

    def __init__(self) -> None:
        self._progress: console.Progress | None = None
        self._started, self._pairs = 0.0, 0
        self._loss, self._due = math.nan, 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to show."""
        self._started, self._pairs = time.monotonic(), 0
        self._progress = console.Progress(steady=True).start()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Advance, and note the speed."""
        self._pairs += len(batch.rows) * trainer.world_size
        speed = self._pairs / (time.monotonic() - self._started)
        if isinstance(pl_module, TrainModule):
            pl_module.note("pairs_per_second", speed)
        if self._progress is not None and trainer.is_global_zero:
            total, now = int(trainer.num_training_batches), time.monotonic()
            if now >= self._due or batch_idx + 1 == total:
                self._due = now + READ_SECONDS
                self._loss = float(trainer.callback_metrics.get("train/loss", math.nan))
            self._progress("training", batch_idx + 1, total, f"loss {self._loss:.3f}, {speed:.1f} pairs/s")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show how good the model is now."""
        mean = float(trainer.callback_metrics.get("val/mean", math.nan))
        console.log(f"step {trainer.global_step}: validation mean over sub-models {mean:.4f}")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop showing."""
        self._close()

    def on_exception(self, *_: object) -> None:
        """Stop showing, so that the error is readable."""
        self._close()

    def _close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
