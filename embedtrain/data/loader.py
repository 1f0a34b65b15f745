"""Steps to this rank's batches: a dataset indexed by the step, and a loader that can start at any of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from embedtrain.data.collate import collate
from embedtrain.data.sources import Example
from embedtrain.types import Batch, Tokenize


class Batches(Protocol):
    """Which rows train together at a step, for all ranks."""

    batches_per_epoch: int

    def epoch(self, step: int) -> int:
        """The epoch of a step counted over the whole run, from 0."""

    def rows(self, step: int) -> list[int]:
        """Row numbers of the global batch of that step."""


class StepDataset(Dataset[Batch]):
    """This rank's `Batch` of any step: `dataset[step]`. Keeps nothing that a step changes but a cache."""

    def __init__(
        self,
        examples: Sequence[Example],
        batches: Batches,
        tokenize: Tokenize,
        *,
        cut: Callable[[Sequence[int], int, int], Sequence[int]],
        rank: int = 0,
        world: int = 1,
        max_negatives: int | None = None,
        guide_tokenize: Tokenize | None = None,
    ) -> None:
        self._examples = examples
        self._batches = batches
        self._tokenize = tokenize
        self._cut = cut
        self._rank = rank
        self._world = world
        self._max_negatives = max_negatives
        self._guide_tokenize = guide_tokenize

    def __getitem__(self, step: int) -> Batch:
        rows = self._cut(self._batches.rows(step), self._rank, self._world)
        epoch = self._batches.epoch(step)
        return collate(
            self._examples,
            rows,
            self._tokenize,
            epoch,
            max_negatives=self._max_negatives,
            guide_tokenize=self._guide_tokenize,
        )


class StepLoader:
    """Batches of the steps first()..total-1; its length is always `total`.

    Not a DataLoader itself: Lightning would put a distributed sampler into one and slice the slices.
    The step is the only state there is, so the state to save is empty; having one tells Lightning that
    the loader can be resumed.
    """

    def __init__(
        self, dataset: StepDataset, total: int, *, first: Callable[[], int], num_workers: int
    ) -> None:
        self._dataset = dataset
        self._total = total
        self._first = first
        self._num_workers = num_workers

    def __len__(self) -> int:
        return self._total

    def __iter__(self) -> Iterator[Batch]:
        loader: DataLoader[Batch] = DataLoader(
            self._dataset,
            batch_size=None,
            sampler=range(self._first(), self._total),
            num_workers=self._num_workers,
            pin_memory=torch.cuda.is_available(),
        )
        yield from loader

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the trainer's step says it all."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""
