"""A training run: its parts put together, and the training. What surrounds that is in `outcome.py`."""

from __future__ import annotations

import time
from functools import cached_property
from typing import Any

import pytorch_lightning as pl

from embedtrain import console
from embedtrain.files.run_folder import RunFolder
from embedtrain.run import build as parts
from embedtrain.run.eval_during import watch
from embedtrain.run.refresh import mine_while_training
from embedtrain.train.callbacks.stopping import StopRequest
from embedtrain.train.checkpoints import take_weights
from embedtrain.train.module import TrainModule


class TrainingRun:
    """What `embedtrain-train` trains, built from a plain config.

    Args:
        config: `RunConfig` as plain containers.
        stop: what signals ask for; left out, nobody listens to them.

    Raises:
        InputError: if a part refuses its settings; nothing has been written then.
    """

    def __init__(self, config: dict[str, Any], stop: StopRequest | None = None) -> None:
        self.config, self.started = config, time.monotonic()
        self.stop = StopRequest() if stop is None else stop
        self.leads = console.is_main_process()
        self.folder = RunFolder(config["output_root"], config["name"])
        pl.seed_everything(config["seed"], verbose=False)
        self.encoder = parts.make_encoder(config)
        self.plan = parts.make_plan(config, self.encoder)
        parts.restrict(self.encoder, self.plan)
        self.cuts = [parts.cut_of(self.encoder, pair) for pair in config["exports"]]
        self.step = parts.make_step(config, self.encoder)
        self.optim = parts.part(config, "optim")
        self.data = parts.make_data(config, self.step, self.folder)
        self.trainer = parts.make_trainer(config, self.folder, self.stop)
        self.data.trainer = self.trainer  # its ranks and accumulation decide the batches
        if self.leads and config["overwrite"]:
            self.folder.forget_bad_rows()
        self.data.setup("fit")
        self.step.check(self.data, self.plan, self.encoder, self.trainer.world_size)
        if not self.data.has_validation:
            self.trainer.limit_val_batches = 0
        if (refresh := parts.optional(config, "mining")) is not None:
            mine_while_training(
                refresh, self.data, self.trainer, self.encoder, self.folder.path, config["seed"]
            )
        self.final_step = self.total_steps
        if (during := parts.optional(config, "eval_during")) is not None:
            watch(during, self.trainer, self.encoder, self.folder, config, leads=self.leads)
        parts.check_final_weights(config, self.data)
        if self.leads:
            world = self.trainer.world_size
            self.folder.prepare(config, overwrite=config["overwrite"], world_size=world)

    def fit(self) -> None:
        """Train, or continue from the newest whole checkpoint; then take the weights that are published.

        Raises:
            Stopped: if a signal asked for it; the last whole step is saved.
        """
        sizes = " ".join(map(str, self.plan.sub_models))
        console.log(f"training {self.total_steps} steps, sub-models {sizes}")
        begun = time.monotonic()
        anew = self.config["overwrite"]  # another rank may yet be deleting
        newest = None if anew else self.folder.checkpoints.newest_whole(repair=self.leads)
        try:
            self.trainer.fit(self.module, datamodule=self.data, ckpt_path=newest)
        except SystemExit as ended:  # Lightning's answer to Ctrl-C is to exit without a word
            raise KeyboardInterrupt from ended
        self.stop.obey()
        self.final_step = self.trainer.global_step  # less than planned, if the run ended early
        if self.leads and self.config["trainer"].get("shard"):
            self._make_whole()
        if self.leads and self.config["final_weights"] == "best":
            self._take_best()
        console.log(f"trained in {console.duration(time.monotonic() - begun)}")

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the run."""
        return -(-self.data.total_steps // self.trainer.accumulate_grad_batches)

    @cached_property
    def module(self) -> TrainModule:
        """What Lightning trains."""
        return TrainModule(
            self.encoder,
            self.step,
            self.plan,
            self.optim,
            total_steps=self.total_steps,
            seed=self.config["seed"],
            describe_rows=lambda rows: [example.where for example in self.data.examples_at(rows)],
        )

    def _take_best(self) -> None:
        best = self.folder.checkpoints.best
        if not best.exists():
            console.log("no validation took place, so the last weights are taken")
            return
        self.final_step = take_weights(self.module, best)
        by = "while training" if self.config["eval_during"] else "in validation"
        console.log(f"taking the weights of step {self.final_step}, the best {by}")

    def _make_whole(self) -> None:
        """Build the model again, with the last weights: those that were trained are spread over ranks."""
        pl.seed_everything(self.config["seed"], verbose=False)
        self.encoder = parts.make_encoder(self.config)
        parts.restrict(self.encoder, self.plan)
        del self.module
        take_weights(self.module, self.folder.checkpoints.last)
