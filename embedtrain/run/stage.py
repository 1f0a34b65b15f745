"""One stage of a run: a step, its data, plan, optimiser and length, built and not begun."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import pytorch_lightning as pl

from embedtrain import console
from embedtrain.data.module import DataModule
from embedtrain.files.checkpoint_folder import StageFolder
from embedtrain.files.run_folder import RunFolder
from embedtrain.model.backbone.block_states import compile_blocks
from embedtrain.model.encoder import Encoder
from embedtrain.objective.plan import Plan
from embedtrain.run import build as parts
from embedtrain.run.hooks import measure_while_training, mine_while_training, start_rotation
from embedtrain.settings.commands import TrainSettings
from embedtrain.settings.component import built
from embedtrain.training.callbacks.eval_during import EvalDuring
from embedtrain.training.callbacks.stopping import StopRequest
from embedtrain.training.module import TrainModule
from embedtrain.training.optim import AdamW, check_precision
from embedtrain.training.readable import check_rows
from embedtrain.training.steps.masked.step import Masked
from embedtrain.training.steps.protocol import Step
from embedtrain.types import InputError


@dataclass(frozen=True)
class Stage:
    """What trains an encoder from one set of weights to the next; nothing of it changes.

    Attributes:
        settings: of the run, with what this stage overrides.
        folder: where it writes.
        during: what is measured while it trains; None for nothing.
    """

    settings: TrainSettings
    folder: StageFolder
    encoder: Encoder
    plan: Plan
    step: Step
    optim: AdamW
    data: DataModule
    trainer: pl.Trainer
    during: EvalDuring | None

    @property
    def total_steps(self) -> int:
        """Optimiser steps."""
        return self.data.optimiser_steps

    @property
    def identity(self) -> dict[str, str]:
        """Hashes of the rows, by what they are."""
        name = f"{self.folder.name}: " * bool(self.folder.name)
        return {f"{name}{what}": value for what, value in self.data.fingerprints().items()}

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


def make_stage(
    settings: TrainSettings, encoder: Encoder, run: RunFolder, folder: StageFolder, stop: StopRequest
) -> Stage:
    """A stage of a run, its rows read.

    Args:
        settings: of this stage.
        encoder: what it trains, with the weights that it begins with.
        run: folder of the run.
        folder: of the stage.
        stop: what signals ask for.

    Raises:
        InputError: if a part refuses its settings, or parts do not fit each other; of a run that is not to be
            overwritten nothing has been changed then.
    """
    if settings.trainer.compile and settings.trainer.shard:
        raise InputError("trainer.compile cannot be used with trainer.shard: leave one of them out")
    is_main = console.is_main_process()
    plan = parts.make_plan(settings, encoder)
    parts.restrict(encoder, plan)
    step = parts.make_step(settings, encoder)
    optim = settings.optim.build()
    data = parts.make_data(settings, step, run, folder)
    trainer = parts.make_trainer(settings, folder, stop)
    data.trainer = trainer  # its ranks and accumulation decide the batches
    data.setup("fit")
    trained = chain(encoder.named_parameters(), step.module.named_parameters() if step.module else ())
    check_precision(trained, str(trainer.precision))
    step.check(data, plan, encoder, trainer.world_size)
    check_rows(data, encoder)
    if settings.trainer.compile:
        compile_blocks(encoder.backbone.blocks)
    if not data.has_validation:
        trainer.limit_val_batches = 0
    if (refresh := built(settings.mining)) is not None:
        mine_while_training(refresh, data, trainer, encoder, folder.path, settings.seed)
    during: EvalDuring | None = built(settings.eval_during)
    if during is not None:
        measure_while_training(during, trainer, encoder, folder, settings, is_main=is_main)
    if settings.rotation is not None and settings.step.resolve() is not Masked:  # which trains no vectors
        start_rotation(settings.rotation.build(), data, trainer, encoder, settings.seed)
    parts.check_final_weights(settings, data)
    return Stage(settings, folder, encoder, plan, step, optim, data, trainer, during)
