"""Full batches from windows of consecutive positions: a step reads and holds one window.

The positions of an epoch are cut into windows of about `WINDOW` rows. The rows of a window are read together,
shuffled, and made into batches (see `filling`). Nothing is stored of the rest of the epoch, so the number of
rows makes no difference.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from embedtrain.data.order.filling import full_batches
from embedtrain.data.order.interleaving import Interleaved
from embedtrain.data.permutation import Permutation
from embedtrain.data.read.sources import Example, check_all_scored_or_none
from embedtrain.data.stores.memory import Store

WINDOW = 8192  # rows


class Drawn(NamedTuple):
    """One row of a global batch."""

    dataset: int  # its number among the datasets
    row: int  # in its dataset
    epoch: int  # of its dataset
    example: Example


class Line(Protocol):
    """Rows at the positions of an epoch."""

    def __len__(self) -> int:
        """Positions of an epoch."""
        ...

    def rows(self, epoch: int, first: int, last: int) -> list[Drawn]:
        """The rows at positions first..last-1."""
        ...


class OneDataset:
    """The rows of one dataset, every epoch in a new order.

    Args:
        number: of the dataset.
        store: its rows.
        seed: 0 or more.
    """

    def __init__(self, number: int, store: Store, seed: int) -> None:
        self._number, self._store, self._seed = number, store, seed

    def __len__(self) -> int:
        return len(self._store)

    def rows(self, epoch: int, first: int, last: int) -> list[Drawn]:
        """The rows at positions first..last-1."""
        order = Permutation(len(self._store), (self._seed, epoch))
        numbers = order(np.arange(first, last)).tolist()
        rows = zip(numbers, self._store.take(numbers), strict=True)
        return [Drawn(self._number, number, epoch, example) for number, example in rows]


class Several:
    """Rows of several datasets in one line as long as the run, each dataset spread evenly over it.

    Args:
        stores: the datasets, D of them.
        counts: rows that each gives to the run (D,); more than it has go through it again.
        seed: 0 or more.
    """

    def __init__(self, stores: Sequence[Store], counts: Sequence[int], seed: int) -> None:
        self._stores, self._seed = stores, seed
        self._line = Interleaved(counts, seed)

    def __len__(self) -> int:
        return self._line.total

    def rows(self, epoch: int, first: int, last: int) -> list[Drawn]:
        """The rows at positions first..last-1, dataset by dataset; the line has one epoch, 0."""
        start, end = self._line.before(first).tolist(), self._line.before(last).tolist()
        drawn: list[Drawn] = []
        for number, store in enumerate(self._stores):
            one, here = OneDataset(number, store, self._seed), start[number]
            while here < end[number]:
                turn, position = divmod(here, len(store))
                stop = min(len(store), position + end[number] - here)
                drawn += one.rows(turn, position, stop)
                here += stop - position
        return drawn


class Windows:
    """`Batches` of one line; holds the last window, nothing else.

    Args:
        line: the rows.
        size: rows of a batch, not more than the line has.
        seed: 0 or more.
        alone: datasets whose rows never are each other's negatives.
        group_by_length: rows of similar length share batches of a window.
    """

    def __init__(
        self, line: Line, *, size: int, seed: int, alone: Collection[str] = (), group_by_length: bool = False
    ) -> None:
        self._line, self._size, self._seed = line, size, seed
        self._alone, self._group_by_length = frozenset(alone), group_by_length
        self.batches_per_epoch = len(line) // size
        self._windows = max(1, round(self.batches_per_epoch * size / WINDOW))
        self._cached: tuple[tuple[int, int], list[list[Drawn]]] | None = None

    def rows(self, step: int) -> list[Drawn]:
        """The rows of a batch counted over all epochs, from 0."""
        epoch, batch = divmod(step, self.batches_per_epoch)
        window = ((batch + 1) * self._windows - 1) // self.batches_per_epoch
        if self._cached is None or self._cached[0] != (epoch, window):
            self._cached = (epoch, window), self._filled(epoch, window)
        return self._cached[1][batch - self._first(window)]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_cached": None}

    def _first(self, window: int) -> int:
        """The first batch of a window."""
        return window * self.batches_per_epoch // self._windows

    def _filled(self, epoch: int, window: int) -> list[list[Drawn]]:
        first, last = self._first(window), self._first(window + 1)
        end = len(self._line) if last == self.batches_per_epoch else last * self._size
        rows = self._line.rows(epoch, first * self._size, end)
        examples = [row.example for row in rows]
        check_all_scored_or_none(examples)
        batches = full_batches(
            examples,
            last - first,
            self._size,
            key=(self._seed, epoch, window),
            alone=self._alone,
            group_by_length=self._group_by_length,
        )
        return [[rows[place] for place in batch] for batch in batches]
