"""A training run: its parts put together, and the training. What surrounds that is in `publish.py`."""

from __future__ import annotations

import time
from functools import cached_property

import pytorch_lightning as pl

from embedtrain import console
from embedtrain.files.run_folder import RunFolder
from embedtrain.run import build as parts
from embedtrain.run.eval_during import watch
from embedtrain.run.refresh import mine_while_training
from embedtrain.settings.commands import TrainSettings
from embedtrain.settings.component import built
from embedtrain.settings.compose import effective, given
from embedtrain.train.callbacks.eval_during import EvalDuring
from embedtrain.train.callbacks.stopping import StopRequest
from embedtrain.train.checkpoints import take_weights
from embedtrain.train.module import TrainModule


class TrainingRun:
    """What `embedtrain-train` trains, built from its settings.

    Args:
        settings: of the command.
        stop: what signals ask for; left out, nobody listens to them.

    Raises:
        InputError: if a part refuses its settings; nothing has been written then.
    """

    def __init__(self, settings: TrainSettings, stop: StopRequest | None = None) -> None:
        self.settings, self.started = settings, time.monotonic()
        self.stop = StopRequest() if stop is None else stop
        self.leads = console.is_main_process()
        self.folder = RunFolder(settings.output_root, settings.name)
        pl.seed_everything(settings.seed, verbose=False)
        self.encoder = parts.make_encoder(settings)
        self.plan = parts.make_plan(settings, self.encoder)
        parts.restrict(self.encoder, self.plan)
        self.cuts = [parts.cut_of(self.encoder, pair) for pair in settings.exports]
        self.step = parts.make_step(settings, self.encoder)
        self.optim = settings.optim.build()
        self.data = parts.make_data(settings, self.step, self.folder)
        self.trainer = parts.make_trainer(settings, self.folder, self.stop)
        self.data.trainer = self.trainer  # its ranks and accumulation decide the batches
        if self.leads and settings.overwrite:
            self.folder.forget_bad_rows()
        self.data.setup("fit")
        self.step.check(self.data, self.plan, self.encoder, self.trainer.world_size)
        if not self.data.has_validation:
            self.trainer.limit_val_batches = 0
        if (refresh := built(settings.mining)) is not None:
            mine_while_training(
                refresh, self.data, self.trainer, self.encoder, self.folder.path, settings.seed
            )
        self.final_step = self.total_steps
        self.during: EvalDuring | None = built(settings.eval_during)
        if self.during is not None:
            watch(self.during, self.trainer, self.encoder, self.folder, settings, leads=self.leads)
        parts.check_final_weights(settings, self.data)
        if self.leads:
            world = self.trainer.world_size
            self.folder.prepare(
                effective(settings), given(settings), overwrite=settings.overwrite, world_size=world
            )

    def fit(self) -> None:
        """Train, or continue from the newest whole checkpoint; then take the weights that are published.

        Raises:
            Stopped: if a signal asked for it; the last whole step is saved.
        """
        sizes = " ".join(map(str, self.plan.sub_models))
        console.log(f"training {self.total_steps} steps, sub-models {sizes}")
        begun = time.monotonic()
        anew = self.settings.overwrite  # another rank may yet be deleting
        newest = None if anew else self.folder.checkpoints.newest_whole(repair=self.leads)
        try:
            self.trainer.fit(self.module, datamodule=self.data, ckpt_path=newest)
        except SystemExit as ended:  # Lightning's answer to Ctrl-C is to exit without a word
            raise KeyboardInterrupt from ended
        self.stop.obey()
        self.final_step = self.trainer.global_step  # less than planned, if the run ended early
        if self.leads and self.settings.trainer.shard:
            self._make_whole()
        if self.leads and self.settings.final_weights == "best":
            self._take_best()
        console.log(f"trained in {console.duration(time.monotonic() - begun)}")

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the run."""
        return self.data.optimiser_steps

    @cached_property
    def module(self) -> TrainModule:
        """What Lightning trains."""
        return TrainModule(
            self.encoder,
            self.step,
            self.plan,
            self.optim,
            total_steps=self.total_steps,
            seed=self.settings.seed,
            describe_rows=lambda rows: [example.where for example in self.data.examples_at(rows)],
        )

    def _take_best(self) -> None:
        best = self.folder.checkpoints.best
        if not best.exists():
            console.log("no validation took place, so the last weights are taken")
            return
        self.final_step = take_weights(self.module, best)
        by = "while training" if self.settings.eval_during else "in validation"
        console.log(f"taking the weights of step {self.final_step}, the best {by}")

    def _make_whole(self) -> None:
        """Build the model again, with the last weights: those that were trained are spread over ranks."""
        pl.seed_everything(self.settings.seed, verbose=False)
        self.encoder = parts.make_encoder(self.settings)
        parts.restrict(self.encoder, self.plan)
        del self.module
        take_weights(self.module, self.folder.checkpoints.last)
