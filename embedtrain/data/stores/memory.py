"""Where the rows of one dataset are, and in which order an epoch goes through them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from embedtrain.data.permutation import Permutation
from embedtrain.data.read.sources import Example
from embedtrain.types import InputError

LOOKED_AT = 256  # rows of a stream that say what it has

Order = Callable[[NDArray[np.int64]], NDArray[np.int64]]


class Store(Protocol):
    """The rows of one dataset, which is one task, numbered from 0."""

    task: str

    def __len__(self) -> int:
        """Number of rows; bad ones count where they are not known before they are read."""
        ...

    def order(self, seed: int, epoch: int) -> Order:
        """Positions 0..len-1 in an epoch -> row numbers: a bijection; nothing is kept a row."""
        ...

    def take(self, numbers: Sequence[int]) -> dict[int, Example]:
        """Row number -> its example; a bad row that the policy lets pass is not there.

        Raises:
            InputError: for a row that cannot be read, under the policy that stops at it.
        """
        ...


class MemoryRows:
    """Rows that are all in memory, in any order of all of them.

    Args:
        examples: at least one.
        task: name of the dataset.
    """

    def __init__(self, examples: Sequence[Example], task: str) -> None:
        self.examples = examples
        self.task = task

    def __len__(self) -> int:
        return len(self.examples)

    def order(self, seed: int, epoch: int) -> Order:
        """Every epoch another permutation of all rows."""
        return Permutation(len(self.examples), (seed, epoch))

    def take(self, numbers: Sequence[int]) -> dict[int, Example]:
        """All of the rows asked for."""
        return {number: self.examples[number] for number in numbers}


def some_rows(store: Store) -> Sequence[Example]:
    """All rows that are in memory, else the first good ones, which say what a stream has.

    Raises:
        InputError: if none of the rows looked at can be read.
    """
    if isinstance(store, MemoryRows):
        return store.examples
    numbers = store.order(0, 0)(np.arange(min(len(store), LOOKED_AT))).tolist()
    found = list(store.take(numbers).values())
    if not found:
        raise InputError(f"{store.task}: none of the first {len(numbers)} rows can be read.")
    return found
