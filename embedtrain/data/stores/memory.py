"""The rows of one dataset by their numbers: all in memory, or some of those of another store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from embedtrain.data.permutation import Permutation
from embedtrain.data.read.sources import Example
from embedtrain.data.stores.fingerprint import fingerprint

SAMPLED = 256  # rows of a store on disk that show what it has


class Store(Protocol):
    """The rows of one dataset, which is one task, numbered from 0."""

    task: str

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def take(self, numbers: Sequence[int]) -> list[Example]:
        """The rows of these numbers, in their order."""
        ...

    def fingerprint(self) -> str:
        """A hash of all rows in their order, but for where they come from."""
        ...


class MemoryRows:
    """Rows that are all in memory.

    Args:
        examples: at least one.
        task: name of the dataset.
    """

    def __init__(self, examples: Sequence[Example], task: str) -> None:
        self.examples = examples
        self.task = task

    def __len__(self) -> int:
        return len(self.examples)

    def take(self, numbers: Sequence[int]) -> list[Example]:
        """The rows of these numbers, in their order."""
        return [self.examples[number] for number in numbers]

    def fingerprint(self) -> str:
        """A hash of all rows; two seconds a million."""
        return fingerprint(self.examples)


class Capped:
    """Some rows of a store, drawn by the seed, with numbers of their own.

    Args:
        store: all rows.
        cap: most rows used.
        seed: draws them.
    """

    def __init__(self, store: Store, cap: int, seed: int) -> None:
        self.task, self._store = store.task, store
        self._count = min(cap, len(store))
        self._chosen = Permutation(len(store), (seed, 0))

    def __len__(self) -> int:
        return self._count

    def take(self, numbers: Sequence[int]) -> list[Example]:
        """The rows of these numbers, in their order."""
        return self._store.take(self._chosen(np.asarray(numbers, dtype=np.int64)).tolist())

    def fingerprint(self) -> str:
        """A hash of the rows that these are drawn from."""
        return self._store.fingerprint()


def some_rows(store: Store) -> Sequence[Example]:
    """All rows that are in memory, else some of them, in any order."""
    if isinstance(store, MemoryRows):
        return store.examples
    return store.take(Permutation(len(store), (0, 0))(np.arange(min(len(store), SAMPLED))).tolist())
