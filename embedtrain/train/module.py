"""The training step: plan, encode, loss of the batch. Everything it calls is decided elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from embedtrain.model.encoder import Encoder
from embedtrain.objective.matryoshka import ObjectiveValue
from embedtrain.objective.plan import Plan
from embedtrain.train.distributed import gather_embeddings, gather_links, most_over_ranks
from embedtrain.train.frozen import FrozenWeights
from embedtrain.train.gradcache import GradCache
from embedtrain.train.optim import AdamW
from embedtrain.train.sharding import average_gradients, clip_gradients, shard
from embedtrain.train.steps.contrastive.batch_loss import BatchLoss, averaged
from embedtrain.train.steps.contrastive.datasets import dataset_facts, dataset_sums
from embedtrain.train.steps.contrastive.validation import Collected, links_to, sub_model_scores
from embedtrain.types import Batch, Chosen, Embeddings, InputError, Links, SubModel, distinct_layers


class TrainModule(pl.LightningModule):
    """One encoder trained on one objective.

    Args:
        encoder: `Inputs` and layers to `Embeddings`.
        loss: `Embeddings` and links to a loss; what its objective owns (a learned temperature) trains along.
        plan: the sub-models of each step.
        optim: optimiser and schedule settings.
        total_steps: optimiser steps of the whole run.
        gradcache: encodes the batch in chunks, each twice; None encodes it once and whole.
        seed: dropout of a step is a function of (seed, step, rank, chunk), so that neither resuming nor a
            second pass needs generator states.
        validate: sub-models scored in validation; None means those of the plan.
        describe_rows: row numbers to the places they came from, for messages.
        datasets: task id -> name of the dataset, for metrics of each.
    """

    def __init__(
        self,
        encoder: nn.Module,
        loss: BatchLoss,
        plan: Plan,
        optim: AdamW,
        *,
        total_steps: int,
        gradcache: GradCache | None = None,
        seed: int = 0,
        validate: Sequence[SubModel] | None = None,
        describe_rows: Callable[[Sequence[int]], Sequence[str]] | None = None,
        datasets: Mapping[int, str] | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.objective, self.plan, self.optim = encoder, loss.objective, plan, optim
        self.loss, self.gradcache = loss, gradcache
        self.total_steps, self.seed = total_steps, seed
        self.validated = tuple(plan.sub_models if validate is None else validate)
        self.describe_rows, self.datasets = describe_rows, datasets or {}
        self._frozen = FrozenWeights(self, "encoder.backbone.")
        self._collected: Collected = Collected([], [])
        self._noted: dict[str, Tensor | float] = {}
        self._sums: dict[str, Tensor] = {}
        self._most: Callable[[int], int] | None = None  # over the ranks that share the weights
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
        """Bring the guide, which is no part of this module, to the device of the batches."""
        if self.loss.guide is not None:
            self.loss.guide.to(self.device)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Make this step's dropout a function of the step, so that a resumed run draws the same."""
        torch.manual_seed(step_seed(self.seed, batch_idx, self.global_rank))
        self._noted = {}
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            self.zero_grad()

    def optimizer_zero_grad(self, *_: object) -> None:
        """Nothing: Lightning calls this after `training_step`, where chunks have left gradients already."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """What Lightning differentiates: the loss, or with GradCache the surrogate of the last chunk.

        Raises:
            InputError: if the loss is not finite; names the step, the rows and the sub-models at fault.
        """
        chosen = self.plan(self.global_step)
        if self.gradcache is not None:
            return self._cached_step(self.gradcache, batch, batch_idx, chosen)
        texts = self.encoder(batch.inputs, distinct_layers(chosen))
        value, links = self.loss(texts, batch, chosen, self.global_step)
        self._note_step(value, links)
        return value.total + self._untouched()

    def _cached_step(self, cache: GradCache, batch: Batch, batch_idx: int, chosen: Chosen) -> Tensor:
        def score(texts: Embeddings) -> Tensor:
            value, links = self.loss(texts, batch, chosen, self.global_step, identical=True)
            self._note_step(value, links)
            return value.total

        def seed(chunk: int) -> int:
            return step_seed(step_seed(self.seed, batch_idx, self.global_rank), chunk, 0)

        def backward(surrogate: Tensor) -> None:
            strategy = self.trainer.strategy  # scales as the precision asks
            strategy.backward(surrogate / self.trainer.accumulate_grad_batches, None)

        owned = [parameter for parameter in self.objective.parameters() if parameter.requires_grad]
        last = cache(
            self.encoder,
            batch.inputs,
            distinct_layers(chosen),
            score,
            owned=owned,
            seed=seed,
            backward=backward,
            agree=self._most,
        )
        return last + self._untouched()

    def _untouched(self) -> Tensor:
        """0, with a gradient of 0 for what a step may leave out: DDP waits for every parameter."""
        parts: list[nn.Module] = [self.objective]
        pooling = getattr(self.encoder, "pooling", None)
        parts += [pooling] if isinstance(pooling, nn.Module) else []
        trained = [item for part in parts for item in part.parameters() if item.requires_grad]
        return sum((0.0 * item.sum() for item in trained), torch.zeros((), device=self.device))

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the norm over all parameters, and stop before a non-finite gradient reaches the weights."""
        bound = math.inf if gradient_clip_val is None else gradient_clip_val
        if self._most is not None:
            average_gradients(self.parameters())
        norm = clip_gradients(self.parameters(), bound)
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        if not torch.isfinite(norm) and not scaled:  # a float16 scaler skips such steps by itself
            raise InputError(self._not_finite("gradient norm", norm, self._links))
        self.note("grad_norm", norm.detach())

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - Lightning has no narrower name for this
        """The optimiser over model and loss, its schedule advanced each optimiser step."""
        optimizer = self.optim.optimizer(self)
        scheduler = self.optim.scheduler(optimizer, self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out what is frozen; keep the queue, which resuming needs, but not beside weights alone."""
        self._frozen.leave_out(checkpoint)
        if self.loss.queue is not None and "optimizer_states" in checkpoint:
            checkpoint["queue"] = self.loss.queue.state_dict()
        if "optimizer_states" in checkpoint:
            checkpoint["dataset_sums"] = dict(self._sums)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put back what is frozen, and continue with the queue of the checkpoint."""
        self._frozen.put_back(checkpoint)
        if self.loss.queue is not None and "queue" in checkpoint:
            self.loss.queue.load_state_dict(checkpoint["queue"])
        self._sums = checkpoint.get("dataset_sums", {})

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep this rank's embeddings and links; they are scored together at the end."""
        layers = tuple(sorted({sub.layer for sub in self.validated}))
        texts = self.encoder(batch.inputs, layers)
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

    def facts(self) -> dict[str, float]:
        """What a line of metrics says: of the last step, and of each dataset since the line before."""
        noted = {name: float(value) for name, value in self._noted.items()}
        sums, self._sums = self._sums, {}
        return noted | dataset_facts(sums, self.datasets)

    def _note_step(self, value: ObjectiveValue, links: Links) -> None:
        """Keep what metrics say of the loss; stop if it is not finite."""
        self._links = links
        total, parts, distillation = averaged(value, self.loss.gather)
        if not torch.isfinite(total):
            raise InputError(self._not_finite("loss", total, links, parts))
        self.log("train/loss", total, batch_size=len(links.query), logger=False)  # for the bar
        self.note("loss", total)
        for sub, part in parts:
            self.note(f"loss_{sub}", part)
        if distillation is not None:
            self.note("distillation", distillation)
        for name, parameter in self.objective.named_parameters():
            if parameter.numel() == 1:
                self.note(name, parameter.detach())
        if value.rows is not None and (len(self.datasets) > 1 or value.rows.removed):
            sums = dataset_sums(value.rows, links.task, self.datasets, self.loss.gather)
            self._sums = {
                name: found + self._sums[name].to(found.device) if name in self._sums else found
                for name, found in sums.items()
            }

    def _not_finite(
        self, what: str, value: Tensor, links: Links, losses: Sequence[tuple[SubModel, Tensor]] = ()
    ) -> str:
        rows: Sequence[object] = links.rows.tolist()
        if self.describe_rows is not None:
            rows = self.describe_rows([int(row) for row in links.rows])
        shown = ", ".join(map(str, rows[:8])) + (f" and {len(rows) - 8} more" if len(rows) > 8 else "")
        faulty = [str(sub) for sub, part in losses if not torch.isfinite(part)]
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
