"""The stages of one training run, in order. Rank 0 measures and writes; every rank trains."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console

from embedtrain.cli.artefacts import index_of, show_leaderboard
from embedtrain.cli.measure import grid, measure
from embedtrain.cli.refreshing import mine_while_training
from embedtrain.cli.watching import watch, write_cut
from embedtrain.config import build
from embedtrain.data.module import DataModule
from embedtrain.evaluate.sweep import IncompleteError
from embedtrain.model.adapter import save_adapter
from embedtrain.model.encoder import Encoder
from embedtrain.model.export import check_sub_model, save_encoder
from embedtrain.model.guide import GuideModel
from embedtrain.model.lora import has_lora
from embedtrain.model.pooling import Pooling
from embedtrain.model.token_cache import cached_tokenize
from embedtrain.objective.negatives import Negatives
from embedtrain.ranks import alone
from embedtrain.report.figures import save_heat_map
from embedtrain.report.table import comparison
from embedtrain.scores import read_scores
from embedtrain.train.batch_loss import BatchLoss
from embedtrain.train.checkpoint import take_weights
from embedtrain.train.checks import check_run
from embedtrain.train.folder import RunFolder
from embedtrain.train.frozen import restrict_pooling
from embedtrain.train.module import TrainModule
from embedtrain.train.stopping import StopRequest
from embedtrain.types import InputError, SubModel, text_id

console = Console(stderr=True)


class TrainingRun:
    """Everything `embedtrain-train` does, built from a plain config.

    Args:
        config: `RunConfig` as plain containers.
        stop: what signals ask for; left out, nobody listens to them.

    Raises:
        InputError: if a part refuses its settings; nothing has been written then.
    """

    def __init__(self, config: dict[str, Any], stop: StopRequest | None = None) -> None:
        self.config, self.started = config, time.monotonic()
        self.stop = StopRequest() if stop is None else stop
        self.leads = leads()
        self.failed: list[IncompleteError] = []  # tasks that could not be scored, before or after
        self.folder = RunFolder(config["output_root"], config["name"])
        pl.seed_everything(config["seed"], verbose=False)
        self.encoder = self._encoder()
        size = {"num_layers": self.encoder.num_layers, "width": self.encoder.width}
        self.plan = self._build("plan", seed=config["seed"], **size)
        self.encoder.trained = self.plan.sub_models
        restrict_pooling(self.encoder.pooling, self.plan)
        self.cuts = [self._cut(pair) for pair in config["exports"]]
        self.guide: GuideModel | None = self._optional("guide")
        self.loss, self.gradcache = self._loss(size), self._optional("gradcache")
        self.optim = self._build("optim")
        self.data: DataModule = self._build(
            "data",
            seed=config["seed"],
            tokenize=self.encoder.tokenize,
            guide_tokenize=None if self.guide is None else self.guide.tokenize,
            cached=cached_tokenize,
            folder=self.folder.path,
        )
        self.trainer = self._trainer()
        self.data.trainer = self.trainer  # its ranks and accumulation decide the batches
        if self.leads and config["overwrite"]:
            self.folder.forget_bad_rows()
        self.data.setup("fit")
        if isinstance(self.loss.pair, Negatives):
            self.loss.pair.share(self.data.in_batch)
        check_run(
            self.loss,
            self.plan,
            width=self.encoder.width,
            offers=self.data.offers,
            tasks=self.data.tasks,
            ranks=self.trainer.world_size,
        )
        if not self.data.has_validation:
            self.trainer.limit_val_batches = 0
        if (refresh := self._optional("mining")) is not None:
            mine_while_training(
                refresh, self.data, self.trainer, self.encoder, self.folder.path, config["seed"]
            )
        self.final_step = self.total_steps
        if (during := self._optional("during")) is not None:
            watch(during, self.trainer, self.encoder, self.folder, config, leads=self.leads)
        self._check_final_weights()
        if self.leads:
            world = self.trainer.world_size
            self.resumed = self.folder.prepare(config, overwrite=config["overwrite"], world_size=world)

    def evaluate_before(self) -> None:
        """Score the untouched backbone on every cell; a resumed run keeps the scores it has."""
        if self.leads and self.config["evaluation"]["before"] and not self.folder.checkpoints.newest_first():
            self._measure("measuring the untouched backbone", step=0)

    def fit(self) -> None:
        """Train, or continue from the newest whole checkpoint; then take the weights that are published.

        Raises:
            Stopped: if a signal asked for it; the last whole step is saved.
        """
        sizes = " ".join(map(str, self.plan.sub_models))
        self._say(f"training {self.total_steps} steps, sub-models {sizes}")
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
        self._say(f"trained in {_minutes(begun)}")

    def evaluate_after(self) -> None:
        """Score the trained model on the same cells, and show both."""
        if self.leads and self._measure("measuring the trained model", step=self.final_step):
            self._show()

    def publish(self) -> None:
        """Write the cuts and, last, the model: a run folder with `model/` is finished.

        Raises:
            IncompleteError: once all is written, if a task could not be scored.
        """
        if not self.leads:
            return
        for cut in self.cuts:
            own = (cut, self.config, self.final_step, self._say)
            write_cut(self.module, self.encoder, self.folder, *own)
        if has_lora(self.encoder.backbone):
            save_adapter(self.encoder, self.folder.path / "adapter", overwrite=True)
        whole = SubModel(self.encoder.num_layers, self.encoder.width)
        index = index_of(self.folder.path, self.config["name"], whole, self.final_step)
        save_encoder(self.encoder, self.folder.model, index=index)
        self._say(f"finished in {_minutes(self.started)}: {self.folder.model}")
        for cut in self.cuts:
            self._say(f"  cut to {cut.layer} layers, {cut.dim} dims: {self.folder.path / f'cut_{cut}'}")
        smaller = self.plan.sub_models[:-1] or self.plan.sub_models
        sub = smaller[len(smaller) // 2]
        self._say(
            f"next: cut it to any size   embedtrain-export model={self.folder.path} layer={sub.layer} "
            f"dim={sub.dim} out=my-cut\n"
            "      train on your rows    embedtrain-train name=mine data.train=rows.jsonl   "
            '(lines of {"query": ..., "positive": ...})'
        )
        if self.failed:
            raise self.failed[-1]

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the run."""
        return -(-self.data.total_steps // self.trainer.accumulate_grad_batches)

    @cached_property
    def module(self) -> TrainModule:
        """What Lightning trains."""
        return TrainModule(
            self.encoder,
            self.loss,
            self.plan,
            self.optim,
            total_steps=self.total_steps,
            gradcache=self.gradcache,
            seed=self.config["seed"],
            datasets={text_id(name): name for name in self.data.tasks},
            describe_rows=lambda rows: [example.where for example in self.data.examples_at(rows)],
        )

    def _check_final_weights(self) -> None:
        wanted = self.config["final_weights"]
        if wanted not in ("last", "best"):
            raise InputError(f"final_weights must be last or best, got {wanted!r}")
        if wanted == "best" and not (self.data.has_validation or self.config["during"]):
            raise InputError(
                "final_weights=best needs something to be best at: give data.validation_rows=N, "
                "data.validation_fraction or data.validation, or during=sweep, or use final_weights=last"
            )

    def _take_best(self) -> None:
        best = self.folder.checkpoints.best
        if not best.exists():
            self._say("no validation took place, so the last weights are taken")
            return
        self.final_step = take_weights(self.module, best)
        by = "while training" if self.config["during"] else "in validation"
        self._say(f"taking the weights of step {self.final_step}, the best {by}")

    def _loss(self, size: Mapping[str, int]) -> BatchLoss:
        guide_width = None if self.guide is None else self.guide.width
        extra = {**size, "guide_width": guide_width, "seed": self.config["seed"]}
        return BatchLoss(
            self._build(
                "objective",
                loss=self._build("contrast", **extra),
                distill=self._optional("distill", **extra),
            ),
            self._optional("negatives"),
            gather=self.config["gather"],
            guide=self.guide,
            queue=self._optional("queue"),
        )

    def _encoder(self) -> Encoder:
        encoder: Encoder = self._build("backbone", pooling=self._pooling())
        return encoder

    def _make_whole(self) -> None:
        """Build the model again, with the last weights: those that were trained are spread over ranks."""
        pl.seed_everything(self.config["seed"], verbose=False)
        self.encoder = self._encoder()
        self.encoder.trained = self.plan.sub_models
        restrict_pooling(self.encoder.pooling, self.plan)
        del self.module
        take_weights(self.module, self.folder.checkpoints.last)

    def _trainer(self) -> pl.Trainer:
        logger = self._optional("logger", save_dir=self.folder.path)
        loggers = [] if logger is None else [logger]
        trainer: pl.Trainer = self._build("trainer", folder=self.folder.path, loggers=loggers, stop=self.stop)
        return trainer

    def _build(self, group: str, **extra: Any) -> Any:  # noqa: ANN401
        return build(self.config[group], group, **extra)

    def _pooling(self) -> Callable[..., Pooling] | None:
        """What makes the pooling once the backbone's size is known; None for the folder's own."""
        chosen = self.config["pooling"]
        return partial(build, chosen, "pooling") if chosen else None

    def _optional(self, group: str, **extra: Any) -> Any:  # noqa: ANN401
        return self._build(group, **extra) if self.config[group] else None

    def _cut(self, pair: Sequence[int]) -> SubModel:
        if len(pair) != 2:
            raise InputError(f"exports must be a list of [layer, dim], got {list(pair)}")
        return check_sub_model(self.encoder, SubModel(*pair))

    def _measure(self, what: str, step: int) -> bool:
        wanted = self.config["evaluation"]
        if not wanted["tasks"]:
            return False
        begun = time.monotonic()
        self._say(what)
        cells = grid(wanted, self.plan.sub_models)
        to = {"run": self.config["name"], "step": step, "folder": self.folder.path}
        try:
            with alone():  # other ranks wait
                measure(self.encoder, wanted, cells, **to)
        except IncompleteError as error:  # of a training that took hours nothing is thrown away for a task
            self.failed.append(error)
            self._say(str(error))
        self._say(f"measured in {_minutes(begun)}")
        return True

    def _show(self) -> None:
        scores = read_scores(self.folder.scores)
        before = [score for score in scores if score.step == 0]
        after = [score for score in scores if score.step == self.final_step]
        Console().print(comparison(before, after, trained=self.plan.sub_models))
        picture = self.folder.path / "heat_map.png"
        save_heat_map(picture, before, after, trained=self.plan.sub_models)
        show_leaderboard(self.folder.path, after, self.encoder)
        self._say(f"picture: {picture}")

    def _say(self, text: str) -> None:
        if self.leads:
            console.print(text, highlight=False, soft_wrap=True)


def leads() -> bool:
    """Whether this process is the first of its command."""
    return bool(getattr(rank_zero_only, "rank", 0) == 0)


def _minutes(begun: float) -> str:
    seconds = time.monotonic() - begun
    return f"{int(seconds // 60)} min {seconds % 60:.0f} s" if seconds >= 60 else f"{seconds:.1f} s"
