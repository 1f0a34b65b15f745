"""The run that is looked at, built and not started, and some of its batches.

Letters: B queries, C documents, M distinct texts, L layers, D width, G width of a guide.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from lightning_fabric.utilities import move_data_to_device
from torch import Tensor

from embedtrain.data.module import DataModule
from embedtrain.model.encoder import Encoder
from embedtrain.model.modes import evaluating
from embedtrain.objective.plan import Plan
from embedtrain.run.stage import Stage
from embedtrain.training.gradcache import GradCache
from embedtrain.training.steps.contrastive.batch_loss import BatchLoss
from embedtrain.training.steps.contrastive.step import ContrastiveStep
from embedtrain.types import Batch, Chosen, Embeddings, Guide, InputError, Pairing, distinct_layers

SCANNED = 512  # first batches that are searched for one of each dataset


class BuiltRun(NamedTuple):
    """All that a training step is made of."""

    encoder: Encoder
    plan: Plan
    loss: BatchLoss
    data: DataModule
    gradcache: GradCache | None = None
    ranks: int = 1
    accumulate: int = 1
    device: torch.device = torch.device("cpu")
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext

    @classmethod
    def of(cls, stage: Stage) -> BuiltRun:
        """The parts of a stage that is built, on its device.

        Raises:
            InputError: if its step is not the contrastive one.
        """
        trainer, step = stage.trainer, stage.step
        if not isinstance(step, ContrastiveStep):
            raise InputError("the doctor examines contrastive training, and this run has another `step`")
        device = trainer.strategy.root_device
        stage.encoder.to(device)
        step.module.to(device)
        return cls(
            stage.encoder,
            stage.plan,
            step.batch_loss,
            stage.data,
            step.gradcache,
            ranks=trainer.world_size,
            accumulate=trainer.accumulate_grad_batches,
            device=device,
            autocast=trainer.precision_plugin.forward_context,
        )

    @property
    def micro_batch_tokens(self) -> int:
        """Rows x padded length that the encoder runs at a time."""
        return self.encoder.micro_batch_tokens


class FirstBatch(NamedTuple):
    """A batch of one dataset (or of all, mixed), as all ranks together train on it."""

    task: str
    step: int  # optimiser step
    whole: Batch
    batch: Batch  # its first rows, no more than are encoded here
    chosen: Chosen

    @property
    def cut(self) -> bool:
        """Whether `batch` is not all of it."""
        return len(self.batch.links.query) < len(self.whole.links.query)


class Encoded(NamedTuple):
    """A first batch with the vectors of the untrained model, in eval mode and without gradient."""

    first: FirstBatch
    texts: Embeddings  # (L, M, D)
    guide: Tensor | None  # (M, G)
    pairing: Pairing


def first_batches(run: BuiltRun, most_rows: int) -> list[FirstBatch]:
    """The first batch of each dataset that has one among the first steps; one of a mixture of all."""
    first: dict[int, int] = {}
    whole = run.data.steps()
    for step in range(min(run.data.total_steps, SCANNED)):
        kinds = {row.dataset for row in whole.drawn(step)}
        first.setdefault(min(kinds) if len(kinds) == 1 else -1, step)
        if len(kinds) > 1 or len(first) == len(run.data.datasets):
            break
    some = run.data.steps(cut=lambda rows, rank, world: rows[:most_rows])
    batches = []
    for dataset, step in sorted(first.items()):
        task = "all datasets" if dataset < 0 else run.data.datasets[dataset].store.task
        optimiser_step = step // run.accumulate
        all_rows = whole[step]
        few = some[step] if len(all_rows.links.query) > most_rows else all_rows
        batches.append(FirstBatch(task, optimiser_step, all_rows, few, run.plan(optimiser_step)))
    return batches


def encoded(run: BuiltRun, first: FirstBatch) -> Encoded:
    """The vectors of a first batch, and who may be a negative in it."""
    batch: Batch = move_data_to_device(first.batch, run.device)
    with evaluating(run.encoder), torch.no_grad(), run.autocast():
        texts = run.encoder(batch.inputs, distinct_layers(first.chosen))
    guide = None
    if run.loss.guide is not None and batch.guide is not None:
        run.loss.guide.to(run.device)
        guide = run.loss.guide.embed(batch.guide)
    first = first._replace(batch=batch)
    return Encoded(first, texts._replace(values=texts.values.float()), guide, paired(run, first, guide))


def paired(run: BuiltRun, first: FirstBatch, guide: Tensor | None, *, whole: bool = False) -> Pairing:
    """Who may be a negative in a first batch, or in all of it."""
    links = (first.whole if whole else first.batch).links
    vectors = None if guide is None else Guide(guide[links.query], guide[links.docs])
    device = links.task.device if guide is None else guide.device
    return run.loss.pair(links, step=first.step, guide=vectors, queued=None, device=device)
