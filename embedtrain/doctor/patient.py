"""The run that is looked at, built and not started, and some of its batches.

Letters: B queries, C documents, M distinct texts, L layers, D width, G width of a guide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from embedtrain.data.module import DataModule
from embedtrain.data.order.windows import Drawn
from embedtrain.model.encoder import CPU_MAX_TOKENS, DEVICE_MAX_TOKENS, Encoder
from embedtrain.model.modes import evaluating
from embedtrain.objective.plan import Plan
from embedtrain.train.gradcache import GradCache
from embedtrain.train.steps.contrastive.batch_loss import BatchLoss
from embedtrain.types import Batch, Chosen, Embeddings, Guide, Pairing, distinct_layers

SCANNED = 512  # first batches that are searched for one of each dataset

T = TypeVar("T", bound=tuple[object, ...])


class Patient(NamedTuple):
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

    @property
    def micro_batch_tokens(self) -> int:
        """Rows x padded length that the encoder runs at a time."""
        if self.encoder.max_tokens is not None:
            return self.encoder.max_tokens
        return CPU_MAX_TOKENS if self.device.type == "cpu" else DEVICE_MAX_TOKENS


class Look(NamedTuple):
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


class Seen(NamedTuple):
    """A look with the vectors of the untrained model, in eval mode and without gradient."""

    look: Look
    texts: Embeddings  # (L, M, D)
    guide: Tensor | None  # (M, G)
    pairing: Pairing


def looks(patient: Patient, most_rows: int) -> list[Look]:
    """The first batch of each dataset that has one among the first steps; one of a mixture of all.

    Args:
        patient: whose data is asked.
        most_rows: rows of `Look.batch`.
    """
    first: dict[int, int] = {}
    whole = patient.data.steps()
    for step in range(min(patient.data.total_steps, SCANNED)):
        kinds = {row.dataset for row in whole.drawn(step)}
        first.setdefault(min(kinds) if len(kinds) == 1 else -1, step)
        if len(kinds) > 1 or len(first) == len(patient.data.datasets):
            break
    some = patient.data.steps(cut=lambda rows, rank, world: _leading(rows, most_rows))
    found = []
    for dataset, step in sorted(first.items()):
        task = "all datasets" if dataset < 0 else patient.data.datasets[dataset].store.task
        optimiser_step = step // patient.accumulate
        all_rows = whole[step]
        few = some[step] if len(all_rows.links.query) > most_rows else all_rows
        found.append(Look(task, optimiser_step, all_rows, few, patient.plan(optimiser_step)))
    return found


def seen(patient: Patient, look: Look) -> Seen:
    """The vectors of a look's batch, and who may be a negative in it."""
    batch = on(look.batch, patient.device)
    with evaluating(patient.encoder), torch.no_grad(), patient.autocast():
        texts = patient.encoder(batch.inputs, distinct_layers(look.chosen))
    guide = None
    if patient.loss.guide is not None and batch.guide is not None:
        patient.loss.guide.to(patient.device)
        guide = patient.loss.guide.embed(batch.guide)
    look = look._replace(batch=batch)
    return Seen(look, texts._replace(values=texts.values.float()), guide, paired(patient, look, guide))


def paired(patient: Patient, look: Look, guide: Tensor | None, *, whole: bool = False) -> Pairing:
    """Who may be a negative in the batch of a look, or in all of it."""
    links = (look.whole if whole else look.batch).links
    told = None if guide is None else Guide(guide[links.query], guide[links.docs])
    return patient.loss.pair(links, step=look.step, guide=told, queued=None)


def on(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device."""

    def moved(part: T) -> T:
        values = [item.to(device) if isinstance(item, Tensor) else item for item in part]
        made: T = type(part)._make(values)  # type: ignore[attr-defined]
        return made

    guide = None if batch.guide is None else moved(batch.guide)
    return Batch(moved(batch.inputs), moved(batch.links), guide)


def _leading(rows: Sequence[Drawn], most: int) -> Sequence[Drawn]:
    return rows[:most]
