"""One optimiser step of any `Step`: the plan, dropout that repeats, clipping, values that are not finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from embedtrain.model.encoder import Agree, Encoder
from embedtrain.objective.plan import Plan
from embedtrain.training.distributed import most_over_ranks
from embedtrain.training.frozen import FrozenWeights
from embedtrain.training.optim import AdamW
from embedtrain.training.sharding import average_gradients, clip_gradients, shard
from embedtrain.training.steps.protocol import Context, Report, Step
from embedtrain.types import Chosen, InputError, SubModel, distinct_layers


class TrainModule(pl.LightningModule):
    """One encoder trained by one kind of step.

    Args:
        encoder: `Inputs` and layers to `Embeddings`.
        step: what is minimised; its `module` trains along.
        plan: the sub-models of each step.
        optim: optimiser and schedule settings.
        total_steps: optimiser steps of the whole run.
        seed: dropout of a step is a function of (seed, step, rank, chunk), so that neither resuming nor a
            second pass needs generator states.
        validate: sub-models scored in validation; None means those of the plan.
        describe_rows: row numbers to the places they came from, for messages.
    """

    def __init__(
        self,
        encoder: nn.Module,
        step: Step,
        plan: Plan,
        optim: AdamW,
        *,
        total_steps: int,
        seed: int = 0,
        validate: Sequence[SubModel] | None = None,
        describe_rows: Callable[[Sequence[int]], Sequence[str]] | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.owned, self.plan, self.optim = encoder, step.module, plan, optim
        self.step, self.total_steps, self.seed = step, total_steps, seed
        self.validated = tuple(plan.sub_models if validate is None else validate)
        self.describe_rows = describe_rows
        self._frozen = FrozenWeights(self, "encoder.backbone.")
        self._noted: dict[str, Tensor | float] = {}
        self._reports: list[Report] = []  # of the batches since the last optimiser step
        self._most: Agree | None = None  # over the ranks that share the weights
        self.tell: Callable[[torch.device], Tensor | None] = lambda _: None  # the other ranks, once a step
        self.told: list[float] | None = None  # what all of them told at the last step
        self.train()  # a loaded backbone is in eval mode, and Lightning would leave its dropout off

    def configure_model(self) -> None:
        """Spread the backbone over the ranks, where the trainer's strategy has a mesh of them."""
        self._frozen.settle()
        if self._device_mesh is None or self._most is not None:
            return
        self._most = partial(most_over_ranks, device=self.trainer.strategy.root_device)
        encoder = cast(Encoder, self.encoder)
        encoder.agree = self._most
        mesh = self._device_mesh["data_parallel"]
        shard(encoder.backbone, encoder.backbone.blocks, mesh, str(self.trainer.precision))

    def on_fit_start(self) -> None:
        """Bring what the step has beside this module to the device of the batches."""
        self.step.to(self.device)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:  # noqa: ANN401
        """Make this step's dropout a function of the step, so that a resumed run draws the same."""
        torch.manual_seed(step_seed(self.seed, batch_idx, self.global_rank))
        self._noted = {}
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            self.zero_grad()
            self._reports = []

    def optimizer_zero_grad(self, *_: object) -> None:
        """Nothing: Lightning calls this after `training_step`, where chunks have left gradients already."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:  # noqa: ANN401
        """What Lightning differentiates."""
        batch_seed = step_seed(self.seed, batch_idx, self.global_rank)

        def backward(surrogate: Tensor) -> None:
            strategy = self.trainer.strategy  # scales as the precision asks
            strategy.backward(surrogate / self.trainer.accumulate_grad_batches, None)

        context = Context(
            self.encoder,
            self._chosen(),
            self.global_step,
            report=self._note_step,
            seed=lambda chunk: step_seed(batch_seed, chunk, 0),
            backward=backward,
            agree=self._most,
        )
        return self.step.loss(batch, context) + self._untouched()

    def _chosen(self) -> Chosen:
        """What the plan trains now; what a pooling has for layers that the plan does not name is frozen."""
        chosen = self.plan(self.global_step)
        named = {0, *(sub.layer for sub in self.plan.sub_models)}  # no cut can be made at 0
        if unknown := set(distinct_layers(chosen)) - named:
            raise InputError(
                f"plan: step {self.global_step} trains layer {min(unknown)}, and its `sub_models` have none "
                "there: let them name all that it may train"
            )
        return chosen

    def _untouched(self) -> Tensor:
        """0, with a gradient of 0 for what a step may leave out: DDP waits for every parameter."""
        parts = (self.owned, *(getattr(self.encoder, name, None) for name in ("pooling", "rotation")))
        trained = [
            item for part in parts if isinstance(part, nn.Module) for item in part.parameters()
            if item.requires_grad
        ]  # fmt: skip
        return sum((0.0 * item.sum() for item in trained), torch.zeros((), device=self.device))

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the norm over all parameters, and stop before what is not finite reaches the weights.

        Losses and norm are looked at here together: each look waits for the device.

        Raises:
            InputError: naming the step, the rows and the sub-models at fault.
        """
        bound = math.inf if gradient_clip_val is None else gradient_clip_val
        if self._most is not None:
            average_gradients(self.parameters())
        norm = clip_gradients(self.parameters(), bound)
        finite, good = self._looked_at(norm.detach())
        for report, fine in zip(self._reports, finite, strict=True):
            if not fine:
                raise InputError(self._not_finite("loss", report.loss, report))
        if not good and not self._scaled():  # a float16 scaler skips such steps by itself
            raise InputError(self._not_finite("gradient norm", norm, self._reports[-1]))
        self.note("grad_norm", norm.detach())
        self.note("lr", optimizer.param_groups[0]["lr"])

    def _looked_at(self, norm: Tensor) -> tuple[list[bool], bool]:
        """Whether each loss and the norm are finite; notes what other ranks told, by the same transfer."""
        flags = torch.stack([*(report.loss for report in self._reports), norm]).isfinite()
        counts = self.tell(self.device)
        if counts is None:
            *finite, good = flags.tolist()
            return finite, good
        every = torch.cat([flags.to(counts.dtype), counts]).tolist()
        self.told = every[len(flags) :]
        *finite, good = (bool(flag) for flag in every[: len(flags)])
        return finite, good

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - Lightning has no narrower name for this
        """The optimiser over all that trains, its schedule advanced each optimiser step."""
        optimizer = self.optim.optimizer(self, fused=self._device_mesh is None and not self._scaled())
        scheduler = self.optim.scheduler(optimizer, self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _scaled(self) -> bool:
        """Whether a float16 scaler takes the steps."""
        return getattr(self.trainer.precision_plugin, "scaler", None) is not None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out what is frozen; keep the state of the step, but not beside weights alone."""
        self._frozen.leave_out(checkpoint)
        if "optimizer_states" in checkpoint:
            checkpoint["step"] = self.step.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put back what is frozen, and continue with the state of the step.

        Raises:
            InputError: for a checkpoint that an older version of embedtrain wrote.
        """
        self._frozen.put_back(checkpoint)
        if "step" in checkpoint:
            self.step.load_state_dict(checkpoint["step"])
        elif "optimizer_states" in checkpoint:
            raise InputError(
                "the checkpoint has no state of the step: an older version of embedtrain wrote it. Continue "
                "with that version, or start anew with overwrite=true"
            )

    def validation_step(self, batch: Any, batch_idx: int) -> None:  # noqa: ANN401
        """Let the step collect what it scores at the end."""
        self.step.validate(batch, self.encoder, self.validated)

    def on_validation_epoch_end(self) -> None:
        """Log val/<metric>_<sub-model> for each validated sub-model, and val/mean over them."""
        metric, scores, count = self.step.validated(self.validated, self.device)
        for sub, score in scores.items():
            self.log(f"val/{metric}_{sub}", score, batch_size=count)
        self.log("val/mean", sum(scores.values()) / len(scores), batch_size=count, prog_bar=True)

    def note(self, name: str, value: Tensor | float) -> None:
        """Keep train/`name` for this step's line of metrics.

        Lightning's `log` would repeat the losses of sub-models that an earlier step trained and this one
        does not, and costs more than a small loss does.
        """
        self._noted[f"train/{name}"] = value

    def facts(self) -> dict[str, float]:
        """What a line of metrics says: of the last step, and what the step added up since the line before."""
        wide = torch.float32 if self.device.type == "mps" else torch.float64  # which MPS does not have
        of_device = {
            name: value.detach().to(wide) for name, value in self._noted.items() if isinstance(value, Tensor)
        }
        facts = {name: value for name, value in self._noted.items() if not isinstance(value, Tensor)}
        if of_device:  # one transfer
            facts |= dict(zip(of_device, torch.stack(list(of_device.values())).tolist(), strict=True))
        return {name: float(facts[name]) for name in self._noted} | self.step.facts()

    def _note_step(self, report: Report) -> None:
        """Keep what metrics say of the loss, and what says where it is not finite."""
        self._reports.append(report)
        self.log("train/loss", report.loss, batch_size=len(report.rows), logger=False)  # for the bar
        self.note("loss", report.loss)
        for sub, part in report.parts:
            self.note(f"loss_{sub}", part)
        for name, value in report.facts.items():
            self.note(name, value)
        for name, parameter in self.owned.named_parameters() if self.owned is not None else ():
            if parameter.numel() == 1:
                self.note(name, parameter.detach())

    def _not_finite(self, what: str, value: Tensor, report: Report) -> str:
        rows: Sequence[object] = report.rows.tolist()
        if self.describe_rows is not None:
            rows = self.describe_rows(report.rows.tolist())
        shown = ", ".join(map(str, rows[:8])) + (f" and {len(rows) - 8} more" if len(rows) > 8 else "")
        faulty = [str(sub) for sub, part in report.parts if what == "loss" and not torch.isfinite(part)]
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
