"""A training run: its stages one after the other, in one folder. What surrounds that is in `publish.py`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytorch_lightning as pl

from embedtrain import console
from embedtrain.files.owned import Place
from embedtrain.files.run_folder import RunFolder
from embedtrain.model.encoder import Encoder
from embedtrain.model.folder.describe import identity_of
from embedtrain.ranks import wait
from embedtrain.run import build as parts
from embedtrain.run.measure import check_measurement
from embedtrain.run.merging.base import base_facts
from embedtrain.run.stage import Stage, make_stage
from embedtrain.settings.commands import TrainSettings
from embedtrain.settings.compose import effective, given
from embedtrain.settings.stages import recorded, stages_of
from embedtrain.training.callbacks.saving import saves_of, stays_of
from embedtrain.training.callbacks.stopping import StopRequest
from embedtrain.training.checkpoints import take_encoder, take_weights
from embedtrain.training.loggers import begin_loggers, end_loggers
from embedtrain.types import InputError


class Run:
    """What `embedtrain-train` trains, built from its settings: all stages checked, the next one ready.

    Each stage builds the encoder anew and takes the weights that the stage before it wrote, whether this
    process trained that stage or an earlier one did: so a continued run is the run that was never stopped.

    Args:
        settings: of the command.
        stop: what signals ask for; left out, nobody listens to them.
        words: of the command line that started it, for advice that can be typed; none from Python.

    Attributes:
        stage: the one that trains next, or trained last.
        untouched: whether nothing has been trained yet.
        sub_models: those that the last stage trains.
        cuts: the sub-models that are written in the end.
        final_step: optimiser steps of all stages that the weights were trained.

    Raises:
        InputError: if a part refuses its settings; nothing has been written then.
    """

    def __init__(
        self, settings: TrainSettings, stop: StopRequest | None = None, words: Sequence[str] = ()
    ) -> None:
        self.started, self.words = time.monotonic(), tuple(words)
        self.stop = StopRequest() if stop is None else stop
        self.is_main = console.is_main_process()
        self.folder = RunFolder(settings.output_root, settings.name)
        facts = recorded(settings, effective), recorded(settings, given)
        try:
            if self.is_main:
                self.folder.lock()
            self._build(settings, anew=settings.overwrite and self.folder.begins_anew(*facts))
            if settings.overwrite and not self.settings.overwrite and self._is_other(facts):
                self._build(settings, anew=True)
            if self.is_main:
                world_size = self.stage.trainer.world_size
                self.folder.prepare(*facts, self.identity, base=self.base, world_size=world_size)
            self.folder.replaces = False
            self._place = Place(self.folder.path)
        except BaseException:
            self.folder.release()
            raise

    def _build(self, settings: TrainSettings, *, anew: bool) -> None:
        """All stages, and the next one with its weights; nothing is written."""
        self.settings = replace(settings, overwrite=anew)
        self._stages = stages_of(self.settings)
        self._folders = self.folder.stages([stage.name for stage in self._stages])
        self._number = 0 if anew else self._unfinished()
        self.untouched = anew or not (self._number or self._folders[0].checkpoints.newest_first())
        encoder = self.starting_encoder()
        named = self.is_main or settings.overwrite  # then every rank must know whether the run is the same
        self.identity = identity_of(encoder) if named else {}
        self.base = base_facts(settings, encoder) if self.is_main else {}
        last = self.stage = self._begin(encoder)
        for number in range(self._number, len(self._stages)):  # a mistake is worth knowing now
            last = self._built(number, self.starting_encoder()) if number > self._number else last
            self.identity |= last.identity if named else {}
        self.sub_models = last.plan.sub_models
        self.cuts = [parts.cut_of(self.encoder, pair) for pair in settings.exports]
        self.final_step = self.stage.total_steps
        if self.is_main:
            check_measurement(self.encoder, self.settings.evaluation, self.sub_models)

    def _is_other(self, facts: tuple[dict[str, Any], dict[str, Any]]) -> bool:
        """Whether a run that was to go on has other rows or weights; the first rank may have replaced it."""
        return self.folder.begins_anew(*facts, self.identity) or self._number != self._unfinished()

    @property
    def encoder(self) -> Encoder:
        """What is trained."""
        return self.stage.encoder

    def fit(self, handed_on: Callable[[str], None] = lambda _: None) -> None:
        """Train all stages, or continue from the newest whole checkpoint; take the weights to publish.

        Args:
            handed_on: called on rank 0 with the name of each stage but the last, once it is trained.

        Raises:
            Stopped: if a signal asked for it; the last whole step is saved.
        """
        begun = time.monotonic()
        self._train()
        while self._number + 1 < len(self._stages):
            if self.is_main:
                handed_on(self._stages[self._number].name)
            self._hand_over()
            end_loggers(self.stage.trainer, exit_code=0)
            self._number += 1
            del self.stage  # before the next one takes its place in memory
            self.stage = self._begin()
            self._train()
        if self.is_main:
            self.take_final()
        console.log(f"trained in {console.duration(time.monotonic() - begun)}")

    def check_folder(self) -> None:
        """Raise InputError if the folder was renamed or replaced since the run began."""
        if self.is_main:
            self._place.check()

    def _unfinished(self) -> int:
        """The first stage that is to be trained, or trained on."""
        finished = [folder.finished is not None for folder in self._folders[:-1]]
        return [*finished, False].index(False)

    def starting_encoder(self) -> Encoder:
        """What the run began with, built anew; sets the seed of everything."""
        pl.seed_everything(self.settings.seed, verbose=False)
        return parts.make_encoder(self.settings)

    def _built(self, number: int, encoder: Encoder) -> Stage:
        settings = self._stages[number].settings
        try:
            return make_stage(settings, encoder, self.folder, self._folders[number], self.stop)
        except InputError as error:
            name = self._stages[number].name
            raise InputError(f"stage {name}: {error}" if name else str(error)) from error

    def _begin(self, encoder: Encoder | None = None) -> Stage:
        """The next stage, with the weights that the one before it ended with."""
        encoder = self.starting_encoder() if encoder is None else encoder
        self.identity = identity_of(encoder)
        if self._number:
            before = self._folders[self._number - 1].finished
            assert before is not None
            take_encoder(encoder, before.weights)
        return self._built(self._number, encoder)

    def _train(self) -> None:
        """Train one stage, or continue it."""
        stage, name = self.stage, self._stages[self._number].name
        sizes = " ".join(map(str, stage.plan.sub_models))
        if not self._number and parts.trains_gates(self.settings, stage.encoder):
            console.log("pooling: the mean of the tokens, with trained gates (without them: pooling=own)")
        console.log(f"training {name}{' ' * bool(name)}{stage.total_steps} steps, sub-models {sizes}")
        self.check_folder()
        anew = self.settings.overwrite  # another rank may yet be deleting
        newest = None if anew else stage.folder.checkpoints.newest_whole(repair=self.is_main)
        if newest is None:
            begin_loggers(stage.trainer, recorded(self.settings, effective))
        saves_of(stage.trainer).on_save = self.folder.settle
        stays_of(stage.trainer).places = [self._place] if self.is_main else []
        try:
            stage.trainer.fit(stage.module, datamodule=stage.data, ckpt_path=newest)
        except SystemExit as ended:  # Lightning's answer to Ctrl-C is to exit without a word
            raise KeyboardInterrupt from ended
        self.stop.obey()
        self.final_step = (
            self._steps_before() + stage.trainer.global_step
        )  # less than planned, if it ended early

    def _steps_before(self) -> int:
        """Optimiser steps of the stages that are finished."""
        return max(self.ends.values(), default=0)

    def _hand_over(self) -> None:
        """Name the weights that the next stage begins with; a stage of which that is known is finished."""
        if self.is_main:
            self._finish()
        wait()

    def finish(self) -> None:
        """Take down that the run is over: published and measured."""
        if self.is_main:
            self._finish()
            self.folder.settle()

    def _finish(self) -> None:
        folder, best = self.stage.folder, self.stage.folder.checkpoints.best
        is_best = self.stage.settings.final_weights == "best" and best.exists()
        folder.finish(best if is_best else folder.checkpoints.last, self.stage.trainer.global_step)

    @property
    def ends(self) -> Mapping[str, int]:
        """Optimiser steps after each stage but the last, by its name."""
        done, ends = 0, {}
        for stage, folder in zip(self._stages, self._folders[: self._number], strict=False):
            done += 0 if folder.finished is None else folder.finished.steps
            ends[stage.name] = done
        return ends

    def take_final(self) -> None:
        """Take the weights that a trained stage ends with, the best ones where these are asked for."""
        if self.settings.trainer.shard:
            self._make_whole()
        if self.stage.settings.final_weights == "best":
            self._take_best()

    def _take_best(self) -> None:
        best = self.stage.folder.checkpoints.best
        if not best.exists():
            console.log("no validation took place, so the last weights are taken")
            return
        self.final_step = self._steps_before() + take_weights(self.stage.module, best)
        by = "while training" if self.stage.during is not None else "in validation"
        console.log(f"taking the weights of step {self.final_step}, the best {by}")

    def _make_whole(self) -> None:
        """Build the model again, with the last weights: those that were trained are spread over ranks."""
        encoder = self.starting_encoder()
        parts.restrict(encoder, self.stage.plan)
        self.stage = replace(self.stage, encoder=encoder)
        take_weights(self.stage.module, self.stage.folder.checkpoints.last)
