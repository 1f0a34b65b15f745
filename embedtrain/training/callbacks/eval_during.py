"""Scores of the model in training: when they are taken, and what follows from them.

What measures is given as a function, so nothing here knows of tasks or mteb. The first rank measures while
the others wait for its scores: whatever goes wrong there, all ranks learn of it and do the same next.
Measuring is no part of training: it leaves weights, gradients, modes and random states as they were.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from embedtrain.console import duration
from embedtrain.files.checkpoint_folder import CheckpointFolder
from embedtrain.ranks import all_ranks, alone, rank
from embedtrain.settings.checks import at_least_one
from embedtrain.types import DTYPES, Cell, Dtype, InputError, SubModel
from embedtrain.whole_step import whole_step

log = logging.getLogger(__name__)

ByTask = Mapping[str, Mapping[Cell, float]]  # task -> cell -> main score, in mteb's units
Measure = Callable[[int], ByTask]  # of the weights as they are; given the optimiser steps taken
MEAN = "mean"


class EvalDuring:
    """What is measured while a run trains, how often, and what that decides: the `eval_during` group.

    Args:
        tasks: as of an evaluation; None for the development splits of `evaluation.tasks`.
        allow_test: also measure on splits that are not for development. Weights chosen by a test split
            score too high on it.
        layers: of the cells; with `dims` None too, the plan's sub-models are measured, not their grid.
        dims: of the cells.
        dtypes: of the cells.
        every: optimiser steps between measurements; the last step is measured in any case.
        time_share: most of the wall time that measuring may take, in 0..1; a measurement that would exceed
            it, taking as long as the last one, waits for the next step that is due. None for no limit.
        monitor: what decides: "mean" over all sub-models, or one of them, as L3_D96.
        patience: measurements in a row without a better one after which training ends; None never ends it.
        min_delta: a measurement is better for `patience` if it is so much above the best.
        best_per_cut: also keep the best weights of each sub-model, for exports of it.

    Raises:
        InputError: for a value out of range.
    """

    def __init__(
        self,
        *,
        tasks: Sequence[str] | None = None,
        allow_test: bool = False,
        layers: Sequence[int] | None = None,
        dims: Sequence[int] | None = None,
        dtypes: Sequence[Dtype] = ("float32",),
        every: int = 500,
        time_share: float | None = None,
        monitor: str = MEAN,
        patience: int | None = None,
        min_delta: float = 0.0,
        best_per_cut: bool = False,
    ) -> None:
        at_least_one(every=every, patience=patience)
        for dtype in dtypes:
            if dtype not in DTYPES:
                raise InputError(f"dtypes has {dtype!r}; there are {', '.join(DTYPES)}")
        if time_share is not None and not 0 < time_share < 1:
            raise InputError(f"time_share must be between 0 and 1, got {time_share}")
        if min_delta < 0:
            raise InputError(f"min_delta must not be negative, got {min_delta}")
        self.tasks, self.allow_test = tasks, allow_test
        self.layers, self.dims, self.dtypes = layers, dims, dtypes
        self.every, self.time_share, self.monitor = every, time_share, monitor
        self.patience, self.min_delta, self.best_per_cut = patience, min_delta, best_per_cut

    def check_monitor(self, cells: Sequence[Cell]) -> None:
        """Nothing, if what decides is measured.

        Raises:
            InputError: naming what there is.
        """
        known = [MEAN, *dict.fromkeys(str(cell.sub) for cell in cells)]
        if self.monitor not in known:
            raise InputError(f"eval_during: monitor must be one of {', '.join(known)}, got {self.monitor!r}")


def means_of(scores: ByTask) -> dict[SubModel, float]:
    """Each sub-model's mean over tasks and dtypes.

    Raises:
        ValueError: if there are no tasks.
    """
    if not scores:
        raise ValueError("no task was measured")
    subs = dict.fromkeys(cell.sub for values in scores.values() for cell in values)
    return {
        sub: fmean(value for values in scores.values() for cell, value in values.items() if cell.sub == sub)
        for sub in subs
    }


class MeasureWhileTraining(Callback):
    """Measures when due, logs, keeps the best weights and ends a run that no longer gets better.

    Args:
        during: when, and what is decided.
        measure: called on the first rank alone.
        folder: where the best weights go.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        during: EvalDuring,
        measure: Measure,
        folder: CheckpointFolder,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.during, self.measure, self.folder, self.clock = during, measure, folder, clock
        self.best: dict[str, tuple[float, int]] = {}  # what decides, or a sub-model -> value, step
        self.reference = -math.inf  # what `patience` compares with
        self.waited, self.ended = 0, False
        self.spent = self.last = self._elapsed = 0.0  # seconds
        self._begun = clock()

    def on_train_start(self, trainer: pl.Trainer, *_: object) -> None:
        """Go on counting; a run that had ended early takes no further step."""
        self._begun = self.clock() - self._elapsed
        if self.ended:
            trainer.should_stop = True

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        """Measure after an optimiser step that is due, before it can be saved."""
        if not whole_step(trainer):
            return
        ends = trainer.fit_loop.batch_idx + 1 == int(trainer.num_training_batches)
        if ends or (trainer.global_step % self.during.every == 0 and self._affordable()):
            self.take(trainer)

    def take(self, trainer: pl.Trainer) -> None:
        """Measure now."""
        step, begun = trainer.global_step, self.clock()
        scores = self._measured(step)
        self.last = self.clock() - begun
        self.spent += self.last
        if scores is None:
            return
        means = means_of(scores)
        named = {MEAN: fmean(means.values()), **{str(sub): value for sub, value in means.items()}}
        facts = {f"eval/{task}_{cell}": value for task in scores for cell, value in scores[task].items()}
        facts |= {"eval/mean": named[MEAN]} | {f"eval/mean_{sub}": value for sub, value in means.items()}
        for logger in trainer.loggers:
            logger.log_metrics(facts, step - 1)  # as the line of that step: resuming drops both or none
        self._keep_best(trainer, named, step)
        self._count(trainer, named[self.during.monitor], step)
        log.info("step %d: evaluation mean %.4f, in %s", step, named[MEAN], duration(self.last))

    def _affordable(self) -> bool:
        """Whether the share of time allows another measurement like the last one; the first rank knows."""
        share = self.during.time_share
        if share is None:
            return True
        elapsed = self.clock() - self._begun
        return all_ranks(self.spent + self.last <= share * (elapsed + self.last))[0]

    def _measured(self, step: int) -> ByTask | None:
        """What the first rank measured, on all; None, and a warning, where that failed."""
        result: ByTask | None = None
        if rank() == 0:
            try:
                with alone():
                    result = self.measure(step)
            except Exception as error:  # no measurement is worth a run; the others wait for an answer
                foreseen = isinstance(error, InputError)
                text = str(error) if foreseen else f"{type(error).__name__}: {error}"
                trace = None if foreseen else error
                log.warning("step %d could not be measured, training goes on: %s", step, text, exc_info=trace)
        return all_ranks(result)[0]

    def _keep_best(self, trainer: pl.Trainer, named: Mapping[str, float], step: int) -> None:
        better = {name for name, value in named.items() if value > self.best.get(name, (-math.inf, 0))[0]}
        self.best |= {name: (named[name], step) for name in better}
        paths = [self.folder.best] if self.during.monitor in better else []
        if self.during.best_per_cut:
            paths += [self.folder.best_of(name) for name in named if name in better - {MEAN}]
        for path in paths:
            trainer.save_checkpoint(path, weights_only=True)

    def _count(self, trainer: pl.Trainer, value: float, step: int) -> None:
        better = value > self.reference + self.during.min_delta
        self.waited = 0 if better else self.waited + 1
        self.reference = value if better else self.reference
        if self.during.patience is not None and self.waited >= self.during.patience:
            self.ended = trainer.should_stop = True
            monitor, waited, (value, best) = self.during.monitor, self.waited, self.best[self.during.monitor]
            text = "ending at step %d: no better %s than %.4f (step %d) in %d measurements"
            log.info(text, step, monitor, value, best, waited)

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs."""
        return {
            "best": {name: list(item) for name, item in self.best.items()},
            "reference": self.reference,
            "waited": self.waited,
            "ended": self.ended,
            "seconds": [self.spent, self.last, self.clock() - self._begun],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.best = {name: (float(value), int(step)) for name, (value, step) in state_dict["best"].items()}
        self.reference = float(state_dict["reference"])
        self.waited, self.ended = int(state_dict["waited"]), bool(state_dict["ended"])
        self.spent, self.last, self._elapsed = map(float, state_dict["seconds"])
