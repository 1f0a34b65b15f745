"""Rows to look at: all of them, or the first ones of each dataset in the order of an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from embedtrain.data.order.mixture import Dataset
from embedtrain.data.permutation import Permutation
from embedtrain.data.read.sources import Example
from embedtrain.data.stores.memory import MemoryRows

READ = 1_024  # rows taken together


class Sample(NamedTuple):
    """Rows that were looked at."""

    examples: Sequence[Example]
    whole: bool  # whether they are all there are

    @property
    def said(self) -> str:
        """What messages call them."""
        return f"{len(self.examples):,} {'rows' if self.whole else 'sampled rows'}"


def sampled(datasets: Sequence[Dataset], most: int) -> Sample:
    """At most `most` rows, dealt evenly to the datasets; those that have fewer leave theirs to the others."""
    shares = dealt([len(item.store) for item in datasets], most)
    found: list[Example] = []
    for item, share in zip(datasets, shares, strict=True):
        store = item.store
        if isinstance(store, MemoryRows) and share == len(store):
            found += store.examples
            continue
        order = Permutation(len(store), (0, 0))
        for start in range(0, share, READ):
            numbers = order(np.arange(start, min(start + READ, share))).tolist()
            found += store.take(numbers)
    return Sample(found, sum(shares) == sum(len(item.store) for item in datasets))


def dealt(sizes: Sequence[int], most: int) -> list[int]:
    """`most` dealt evenly, none more than its size; small ones leave their rest to the others."""
    shares, left = [0] * len(sizes), most
    ordered = sorted(range(len(sizes)), key=lambda place: sizes[place])
    for done, place in enumerate(ordered):
        shares[place] = min(sizes[place], left // (len(sizes) - done))
        left -= shares[place]
    return shares
