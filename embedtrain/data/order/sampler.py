"""Which rows train together at a step: a function of (data, seed, step) alone, with no state to save or lose.

The batch is planned for all ranks together and then sliced, so ranks agree without talking, every number of
ranks trains on the same global batches, and a resumed run needs nothing but its step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np

from embedtrain.data.order.interleaving import Interleaved
from embedtrain.data.order.windows import Drawn, Windows
from embedtrain.data.read.sources import Example
from embedtrain.types import InputError

BLOCK = 1024  # steps whose datasets are worked out together

T = TypeVar("T")


class Batches(Protocol):
    """Which rows train together at a step, for all ranks."""

    def rows(self, step: int) -> list[Drawn]:
        """The global batch of a step counted over the whole run, from 0."""
        ...


class OneTask:
    """Every batch is of one dataset; the datasets take turns, each spread evenly over the run.

    Args:
        datasets: the batches of each, D of them.
        steps: steps of the run that each trains, (D,); beyond its epoch it goes on with the next.
        seed: 0 or more.
    """

    def __init__(self, datasets: Sequence[Windows], steps: Sequence[int], seed: int) -> None:
        self._datasets = datasets
        self._line = Interleaved(steps, seed)
        self._block: tuple[int, list[int], list[int]] = (-1, [], [])

    def rows(self, step: int) -> list[Drawn]:
        """The global batch of a step counted over the whole run, from 0."""
        block, place = divmod(step, BLOCK)
        if self._block[0] != block:
            last = min((block + 1) * BLOCK, self._line.total)
            kinds, numbers = self._line.stretch(block * BLOCK, last)
            self._block = block, kinds.tolist(), numbers.tolist()
        return self._datasets[self._block[1][place]].rows(self._block[2][place])


class EvenBatches:
    """All rows once and in order, in batches of `batch_size` rows or somewhat more.

    Validation needs every row exactly once, and no batch so short that a rank gets none of it: sizes are
    even, from `batch_size` to less than twice as much; fewer only when all rows together are fewer.
    """

    def __init__(self, examples: Sequence[Example], *, batch_size: int) -> None:
        self._examples = examples
        count = len(examples)
        self._bounds = np.linspace(0, count, max(1, count // batch_size) + 1).astype(int).tolist()
        self.batches = len(self._bounds) - 1

    def rows(self, step: int) -> list[Drawn]:
        """One batch. Its epoch is always 0: validation never rotates positives or negatives."""
        numbers = range(self._bounds[step], self._bounds[step + 1])
        return [Drawn(0, number, 0, self._examples[number]) for number in numbers]


def slice_for_rank(rows: Sequence[T], rank: int, world: int) -> Sequence[T]:
    """The rank's own part of a global batch: consecutive, equally long on every rank.

    Raises:
        InputError: when the batch cannot be split evenly.
    """
    if len(rows) % world:
        below = len(rows) // world * world
        sizes = f"{below} or {below + world}" if below else str(world)
        raise InputError(
            f"batch_size={len(rows)} cannot be split evenly over {world} ranks: make it {sizes}."
        )
    each = len(rows) // world
    return rows[rank * each : (rank + 1) * each]


def part_for_rank(rows: Sequence[T], rank: int, world: int) -> Sequence[T]:
    """The rank's consecutive part of the rows; parts differ by at most one row and none is lost."""
    return rows[len(rows) * rank // world : len(rows) * (rank + 1) // world]
