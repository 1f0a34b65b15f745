"""Steps to this rank's batches: a dataset indexed by the step, and a loader that can start at any of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from embedtrain.data.collate import collate
from embedtrain.data.draw import ALL, Draw, pick
from embedtrain.data.sampler import Batches
from embedtrain.data.sources import Example
from embedtrain.data.windows import Drawn
from embedtrain.types import Batch, Tokenize

Cut = Callable[[Sequence[Drawn], int, int], Sequence[Drawn]]
Revise = Callable[[int, Sequence[int], list[Example]], list[Example]]


class StepDataset(Dataset[Batch]):
    """This rank's `Batch` of any step: `dataset[step]`. Keeps nothing that a step changes but a cache.

    Args:
        batches: steps to global batches.
        tokenize: texts to tokens.
        cut: (global batch, rank, ranks) to the rank's own part.
        rank: this one.
        world: how many there are.
        offsets: what is added to the row numbers of each dataset, so that each row of the data has its own.
        draws: which negatives the rows of each dataset bring.
        guide_tokenize: texts to tokens of a guide.
        revise: (step, numbers in the data, examples) to as many examples: others may stand in for the rows.
            It is called where batches are made: in the worker processes, ahead of the step, if there are any.
    """

    def __init__(
        self,
        batches: Batches,
        tokenize: Tokenize,
        *,
        cut: Cut,
        rank: int = 0,
        world: int = 1,
        offsets: Sequence[int] = (0,),
        draws: Sequence[Draw] = (ALL,),
        guide_tokenize: Tokenize | None = None,
        revise: Revise | None = None,
    ) -> None:
        self._batches, self._tokenize, self._guide_tokenize = batches, tokenize, guide_tokenize
        self._cut, self._rank, self._world = cut, rank, world
        self._offsets, self._draws = offsets, draws
        self._revise = revise

    def drawn(self, step: int) -> Sequence[Drawn]:
        """The rows of a step, before `revise`."""
        return self._cut(self._batches.rows(step), self._rank, self._world)

    def __getitem__(self, step: int) -> Batch:
        rows = self.drawn(step)
        numbers = [self._offsets[row.dataset] + row.row for row in rows]
        examples = [row.example for row in rows]
        if self._revise is not None:
            examples = self._revise(step, numbers, examples)
        picks = [
            pick(example, row.row, row.epoch, draw=self._draws[row.dataset], number=number)
            for row, number, example in zip(rows, numbers, examples, strict=True)
        ]
        return collate(picks, self._tokenize, guide_tokenize=self._guide_tokenize)


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
