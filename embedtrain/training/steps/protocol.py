"""What a kind of training is: how its batches are made, what it minimises, how it is validated.

A `Step` is the only thing that sees a model and a batch. `TrainModule` runs any of them: it knows the plan,
the optimiser and the ranks, and nothing of what is in a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from embedtrain.data.loader import Collate
from embedtrain.data.module import DataModule
from embedtrain.model.encoder import Agree, Encoder
from embedtrain.objective.plan import Plan
from embedtrain.types import Chosen, SubModel


class Report(NamedTuple):
    """What a step says of its loss before anything is differentiated."""

    loss: Tensor  # scalar, detached: the mean over all ranks
    rows: Tensor  # (B,) int64 numbers in the data of the rows that it is of, for messages
    parts: Sequence[tuple[SubModel, Tensor]] = ()  # detached loss of each sub-model before its weight
    facts: Mapping[str, Tensor] = {}  # further detached numbers for the line of metrics: name -> scalar


class Context(NamedTuple):
    """What a step is given beside its batch."""

    encoder: nn.Module
    chosen: Chosen  # sub-models of the plan, and their weights
    step: int  # optimiser steps taken so far
    report: Callable[[Report], None]  # call it once; a loss that is not finite ends the run before its step
    seed: Callable[[int], int]  # number of a chunk -> seed of its dropout
    backward: Callable[[Tensor], object]  # differentiates what comes of all chunks but the last
    agree: Agree | None = None  # numbers of chunks -> those of the ranks which have most


class Validated(NamedTuple):
    """Quality on held-out rows, the higher the better."""

    metric: str
    scores: Mapping[SubModel, float]
    rows: int  # rows of all ranks


class Parts(NamedTuple):
    """What a run gives its step to be made of."""

    encoder: Encoder
    seed: int
    gather: str  # as the config says
    group: Callable[
        ..., Any
    ]  # name of a group, what only the run knows -> what it describes; None for `none`


class MakesStep(Protocol):
    """The settings of a step, as an option of the `step` group describes them."""

    def step(self, parts: Parts) -> Step:
        """The step for a run.

        Raises:
            InputError: if a part refuses its settings, or the encoder does not fit.
        """
        ...


class Step(Protocol):
    """One kind of training."""

    @property
    def module(self) -> nn.Module | None:
        """What trains beside the encoder and is never published; None for nothing."""
        ...

    @property
    def collate(self) -> Collate:
        """Rows of a training step to its batch, which has their numbers in the data as `rows` (B,)."""
        ...

    @property
    def validation_collate(self) -> Collate:
        """Rows to a batch of validation."""
        ...

    def check(self, data: DataModule, plan: Plan, encoder: Encoder, ranks: int) -> None:
        """Take what is known once the rows are read.

        Raises:
            InputError: for a step that these rows, this plan, model or number of ranks cannot serve.
        """
        ...

    def to(self, device: torch.device) -> object:
        """Bring what is no part of `module` to the device of the batches."""
        ...

    def loss(self, batch: Any, context: Context) -> Tensor:  # noqa: ANN401
        """The scalar that Lightning differentiates: the loss of this rank, or of its last chunk.

        DDP takes the mean of the gradients over ranks.
        """
        ...

    def validate(self, batch: Any, encoder: nn.Module, sub_models: Sequence[SubModel]) -> None:  # noqa: ANN401
        """Collect what `validated` needs of one batch of this rank."""
        ...

    def validated(self, sub_models: Sequence[SubModel], device: torch.device) -> Validated:
        """Scores of all that was collected on all ranks; the collection is empty afterwards."""
        ...

    def facts(self) -> dict[str, float]:
        """Metrics over the steps since the last call, by their whole names."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What an exact continuation needs beside `module`: tensors and plain containers."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        ...
