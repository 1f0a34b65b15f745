"""The training step: plan, encode, gather, pair, objective. Everything it calls is decided elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from embedtrain.objective.matryoshka import Objective, ObjectiveValue
from embedtrain.objective.pairing import pair
from embedtrain.objective.plan import Plan
from embedtrain.train.distributed import gather_embeddings, gather_links
from embedtrain.train.optim import AdamW
from embedtrain.train.validation import Collected, links_to, sub_model_scores
from embedtrain.types import Batch, InputError, Links, SubModel, distinct_layers


class TrainModule(pl.LightningModule):
    """One encoder trained on one objective.

    Args:
        encoder: `Tokens` and layers to `Embeddings`.
        objective: `Embeddings` to a loss; its own parameters (a learned temperature) train along.
        plan: the sub-models of each step.
        optim: optimiser and schedule settings.
        total_steps: optimiser steps of the whole run.
        seed: dropout of a step is a function of (seed, step, rank), so resuming needs no generator state.
        validate: sub-models scored in validation; None means those of the plan.
        describe_rows: row numbers to the places they came from, for messages.
    """

    def __init__(
        self,
        encoder: nn.Module,
        objective: Objective,
        plan: Plan,
        optim: AdamW,
        *,
        total_steps: int,
        seed: int = 0,
        validate: Sequence[SubModel] | None = None,
        describe_rows: Callable[[Sequence[int]], Sequence[str]] | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.objective, self.plan, self.optim = encoder, objective, plan, optim
        self.total_steps, self.seed = total_steps, seed
        self.validated = tuple(plan.sub_models if validate is None else validate)
        self.describe_rows = describe_rows
        self._collected: Collected = Collected([], [])
        self._noted: dict[str, Tensor | float] = {}
        self.train()  # a loaded backbone is in eval mode, and Lightning would leave its dropout off

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Make this step's dropout a function of the step, so that a resumed run draws the same."""
        torch.manual_seed(step_seed(self.seed, batch_idx, self.global_rank))
        self._noted = {}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of the global batch, equal on every rank.

        Raises:
            InputError: if it is not finite; names the step, the rows and the sub-models at fault.
        """
        chosen = self.plan(self.global_step)
        texts = gather_embeddings(self.encoder(batch.texts, distinct_layers(chosen)))
        links = gather_links(batch.links)
        value = self.objective(texts.rows(links.query), texts.rows(links.docs), pair(links), chosen)
        if not torch.isfinite(value.total):
            raise InputError(self._not_finite("loss", value.total, links, value))
        self._links = links
        self.log("train/loss", value.total.detach(), batch_size=len(links.query), logger=False)  # for the bar
        self._note_step(value)
        total: Tensor = value.total
        return total

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the norm over all parameters, and stop before a non-finite gradient reaches the weights."""
        bound = math.inf if gradient_clip_val is None else gradient_clip_val
        norm = nn.utils.clip_grad_norm_(self.parameters(), bound)
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        if not torch.isfinite(norm) and not scaled:  # a float16 scaler skips such steps by itself
            raise InputError(self._not_finite("gradient norm", norm, self._links))
        self.note("grad_norm", norm.detach())

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - Lightning has no narrower name for this
        """The optimiser over model and loss, its schedule advanced each optimiser step."""
        optimizer = self.optim.optimizer(self)
        scheduler = self.optim.scheduler(optimizer, self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep this rank's embeddings and links; they are scored together at the end."""
        layers = tuple(sorted({sub.layer for sub in self.validated}))
        texts = self.encoder(batch.texts, layers)
        self._collected.texts.append(texts._replace(values=texts.values.cpu()))
        self._collected.links.append(links_to(batch.links, torch.device("cpu")))

    def on_validation_epoch_end(self) -> None:
        """Log val/<metric>_<sub-model> for each validated sub-model, and val/mean over them."""
        texts, links = self._collected.joined()
        self._collected = Collected([], [])
        texts = gather_embeddings(texts._replace(values=texts.values.to(self.device)))
        links = gather_links(links_to(links, self.device))
        metric, scores = sub_model_scores(texts, links, self.validated)
        count = len(links.query)
        for sub, score in scores.items():
            self.log(f"val/{metric}_{sub}", score, batch_size=count)
        self.log("val/mean", sum(scores.values()) / len(scores), batch_size=count, prog_bar=True)

    def note(self, name: str, value: Tensor | float) -> None:
        """Keep train/`name` for this step's line of metrics.

        Lightning's `log` would repeat the losses of sub-models that an earlier step trained and this one
        does not, and costs more than a small loss does.
        """
        self._noted[f"train/{name}"] = value

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:  # noqa: ANN401
        """Write the line of the step, if it is one of those that are written."""
        stepped = not self.trainer.fit_loop._should_accumulate()
        due = self.global_step % self.trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
        if stepped and due:
            facts = {name: float(value) for name, value in self._noted.items()}
            for logger in self.loggers:
                logger.log_metrics(facts, self.global_step - 1)

    def _note_step(self, value: ObjectiveValue) -> None:
        self.note("loss", value.total.detach())
        for sub, part in value.parts:
            self.note(f"loss_{sub}", part.detach())
        if value.distillation is not None:
            self.note("distillation", value.distillation.detach())
        for name, parameter in self.objective.named_parameters():
            if parameter.numel() == 1:
                self.note(name, parameter.detach())

    def _not_finite(
        self, what: str, value: Tensor, links: Links, losses: ObjectiveValue | None = None
    ) -> str:
        rows: Sequence[object] = links.rows.tolist()
        if self.describe_rows is not None:
            rows = self.describe_rows([int(row) for row in links.rows])
        shown = ", ".join(map(str, rows[:8])) + (f" and {len(rows) - 8} more" if len(rows) > 8 else "")
        faulty = [str(sub) for sub, part in (losses.parts if losses else ()) if not torch.isfinite(part)]
        return (
            f"{what} is {value.item()} at step {self.global_step}"
            + (f", first at {', '.join(faulty)}" if faulty else "")
            + f". Batch rows: {shown}. Training stopped before this step changed the weights; the last "
            "checkpoint is good. Look at these rows, lower optim.lr or use trainer.precision=32-true, then "
            "run the same command again"
        )


def step_seed(seed: int, step: int, rank: int) -> int:
    """A seed of its own for each (seed, step, rank), in 0..2^62."""
    return ((seed * 1_000_003 + step) * 65_537 + rank) % (1 << 62)
