"""Commands in processes that start in milliseconds: forked from one that has imported everything.

They are processes like any other, to be sent signals, SIGKILL included. What a command costs without this is
its imports, 5 to 8 s.
"""
# ruff: noqa: ANN401 - numbers that processes share have no type of their own

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from embedtrain.settings.commands import TrainSettings

IMPORTED = (
    "embedtrain.cli.launch",
    "embedtrain.run.publish",
    "embedtrain.cli.process.stopping",
    "embedtrain.cli.train",
    "embedtrain.cli.mine",
    "embedtrain.evaluation.sweeping.sweep",
    "mteb",
    "transformers.models.bert.modeling_bert",
)
PHASES = ("start", "step", "save", "validation", "mining", "measuring", "end")
START, STEP, SAVE, VALIDATION, MINING, MEASURING, END = range(len(PHASES))


def start(
    words: Sequence[str],
    folder: Path,
    log: Path,
    environment: Mapping[str, str] | None = None,
    command: str = "train",
) -> ForkServerProcess:
    """`embedtrain-COMMAND WORDS` in `folder`, printing to `log`; its exit status is that of the process."""
    return forked(_command, folder, log, environment, command, list(map(str, words)))


def start_run(
    settings: TrainSettings, folder: Path, log: Path, watch: tuple[Any, Any, Any] | None = None
) -> ForkServerProcess:
    """What the command does with its settings, without composing them, which takes a second.

    Args:
        settings: of the command.
        folder: where it works.
        log: what it prints to.
        watch: what it keeps up to date: its phase, optimiser steps done, how often each phase has begun.
    """
    return forked(_run, folder, log, None, settings, watch)


def forked(
    target: Callable[..., None],
    folder: Path,
    log: Path,
    environment: Mapping[str, str] | None,
    *given: Any,
    imported: Sequence[str] = IMPORTED,
) -> ForkServerProcess:
    """`target(*given)` in a process of its own, in `folder`, printing to `log`.

    Its environment is that of the caller now, not when the first process was started, and `environment`. The
    first call decides what is `imported` beforehand.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(imported))
    whole = dict(os.environ) | dict(environment or {})
    process = context.Process(target=_redirected, args=(target, folder, log, whole, given))
    process.start()
    return process


def _redirected(
    target: Callable[..., None], folder: Path, log: Path, environment: dict[str, str], given: tuple[Any, ...]
) -> None:
    from pytorch_lightning.utilities import rank_zero_only

    multiprocessing.set_start_method("fork", force=True)  # workers of batches start as in any command
    os.environ.clear()
    os.environ.update(environment)
    rank_zero_only.rank = int(environment.get("RANK", 0))  # Lightning looked when it was imported
    os.chdir(folder)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout = sys.stderr = os.fdopen(2, "w", buffering=1)  # those inherited may be anything
    target(*given)


def _command(name: str, words: list[str]) -> None:
    sys.argv = [f"embedtrain-{name}", *words]
    importlib.import_module(f"embedtrain.cli.{name}").main()


def _run(settings: TrainSettings, watch: tuple[Any, Any, Any] | None) -> None:
    from embedtrain.cli import train
    from embedtrain.cli.process.logs import set_up_logs

    set_up_logs()
    if watch is not None:
        _watch(*watch)
    train.run(settings)


def _watch(phase: Any, done: Any, begun: Any) -> None:
    """Have the run say what it is at."""
    from embedtrain.mining.refresh import RefreshNegatives
    from embedtrain.training import trainer
    from embedtrain.training.callbacks.eval_during import MeasureWhileTraining
    from embedtrain.training.callbacks.saving import TrainingProgress

    def enter(number: int, steps: int) -> None:
        phase.value, done.value = number, steps
        begun[number] += 1

    class Watched(TrainingProgress):
        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            enter(STEP, trainer.global_step)

        def on_validation_start(self, trainer: Any, *_: Any) -> None:
            enter(VALIDATION, trainer.global_step)

        def on_save_checkpoint(self, trainer: Any, *_: Any) -> None:
            enter(SAVE, trainer.global_step)

        def on_train_end(self, trainer: Any, *given: Any) -> None:
            super().on_train_end(trainer, *given)
            enter(END, trainer.global_step)

    mine, measure = RefreshNegatives.mine, MeasureWhileTraining._measured

    def mined(self: Any, step: int) -> None:
        enter(MINING, step)
        mine(self, step)
        phase.value = STEP

    def measured(self: Any, step: int) -> Any:
        enter(MEASURING, step)
        found = measure(self, step)
        phase.value = STEP
        return found

    trainer.TrainingProgress = Watched  # type: ignore[misc]
    RefreshNegatives.mine = mined  # type: ignore[method-assign]
    MeasureWhileTraining._measured = measured  # type: ignore[method-assign]
