"""Which contents a backbone runs at a time: each in a row of its own, or several short ones in a row."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain, pairwise
from typing import NamedTuple

from embedtrain.model.inputs.micro_batches import micro_batches
from embedtrain.model.inputs.packing import rows_of

PACKED_WIDTH = 64  # columns that a row of several texts has at most (docs/training.md, Padding)
# Attention over wider rows and their masks cost as much as a tenth of the tokens (docs/training.md, Packing).
WORTH_PACKING = 0.9


class MicroBatch(NamedTuple):
    """What the backbone runs at a time."""

    rows: list[int]  # numbers among all contents, those of the first row of tokens first
    counts: list[int]  # contents of each row of tokens
    lengths: list[int]  # real tokens of each content

    @property
    def shares(self) -> bool:
        """Whether two are in one row."""
        return len(self.counts) < len(self.rows)

    def tokens(self) -> int:
        """Rows x width, padding included."""
        begins = [0, *accumulate(self.counts)]
        return len(self.counts) * max(sum(self.lengths[a:b]) for a, b in pairwise(begins))


def alone(lengths: Sequence[int], budget: int, overhead: int | None) -> list[MicroBatch]:
    """Contents in rows of their own, as `micro_batches`."""
    return _groups(lengths, [[content] for content in range(len(lengths))], budget, overhead)


def sharing(lengths: Sequence[int], budget: int, overhead: int | None) -> list[MicroBatch]:
    """Short contents in common rows."""
    return _groups(lengths, rows_of(lengths, min(PACKED_WIDTH, budget)), budget, overhead)


def in_one_row(lengths: Sequence[int], budget: int, overhead: int | None) -> list[MicroBatch]:
    """All contents of a micro-batch in one row, for kernels that compute nothing between two."""
    return _groups(lengths, rows_of(lengths, budget), budget, overhead)


def cheaper(lengths: Sequence[int], budget: int, overhead: int) -> list[MicroBatch]:
    """`sharing` where it runs clearly fewer tokens, `overhead` a micro-batch among them; else `alone`."""
    apart = alone(lengths, budget, overhead)
    if len(apart) == len(lengths):  # a query is one text
        return apart
    together = sharing(lengths, budget, overhead)
    costs = [sum(group.tokens() + overhead for group in groups) for groups in (apart, together)]
    return together if costs[1] < WORTH_PACKING * costs[0] else apart


def _groups(
    lengths: Sequence[int], shared: Sequence[Sequence[int]], budget: int, overhead: int | None
) -> list[MicroBatch]:
    widths = [sum(lengths[content] for content in row) for row in shared]
    groups = []
    for some in micro_batches(widths, budget, overhead):
        rows = list(chain.from_iterable(shared[row] for row in some))
        counts = [len(shared[row]) for row in some]
        groups.append(MicroBatch(rows, counts, [lengths[row] for row in rows]))
    return groups
