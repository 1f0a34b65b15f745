"""Which positive of a row and which of its negatives take part: functions of (seed, epoch, row), no state."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

from embedtrain.data.read.sources import Example
from embedtrain.types import InputError

How = Literal["all", "first", "rotate", "sample"]


class Pick(NamedTuple):
    """One row of a batch and what of it takes part."""

    number: int  # of the row in the data, for messages
    example: Example
    positive: int  # number among its positives
    negatives: Sequence[int]  # numbers among its negatives


class Draw(NamedTuple):
    """How many negatives a row brings, and which.

    "first" takes the first ones, "rotate" the next ones of a ring every epoch, "sample" draws them by (seed,
    epoch, row), and "all" takes all, however many they are.
    """

    most: int | None = None  # all when None
    how: How = "rotate"
    seed: int = 0

    def checked(self, where: str) -> Draw:
        """Itself. Raises InputError, beginning with `where`, for a setting that does not exist."""
        if self.how not in get_args(How):
            names = ", ".join(get_args(How))
            raise InputError(f"{where}draw_negatives must be one of {names}, got {self.how!r}.")
        whole = isinstance(self.most, int) and not isinstance(self.most, bool)
        if self.most is not None and (not whole or self.most < 0):
            raise InputError(f"{where}the most negatives of a row must be 0 or more, got {self.most!r}.")
        return self

    def numbers(self, count: int, row: int, epoch: int) -> Sequence[int]:
        """Which of `count` negatives take part."""
        most = count if self.how == "all" or self.most is None else self.most
        if count <= most:
            return range(count)
        if self.how == "rotate":
            start = epoch * most % count
            return [*range(count), *range(count)][start : start + most]
        if self.how == "sample":
            drawn = sorted(range(count), key=lambda number: _lot(self.seed, epoch, row, number))
            return sorted(drawn[:most])
        return range(most)


ALL = Draw()


def pick(example: Example, row: int, epoch: int = 0, *, draw: Draw = ALL, number: int | None = None) -> Pick:
    """What takes part of the row in an epoch.

    Of several positives one is taken, in turn over the epochs and rows, so that in time all are.

    Args:
        example: the row.
        row: its number in its dataset, which the draws depend on.
        epoch: of its dataset, 0 or more.
        draw: which negatives.
        number: its number in the data; `row` when None.
    """
    positive = (epoch + row) % max(1, len(example.positives))
    negatives = draw.numbers(len(example.negatives), row, epoch)
    return Pick(row if number is None else number, example, positive, negatives)


def _lot(*numbers: int) -> bytes:
    return hashlib.blake2b(",".join(map(str, numbers)).encode(), digest_size=8).digest()
