"""Rows of one window to full batches that share as few texts as can be.

Rows without scores serve each other as negatives. Two of them that share a text of which either makes a query
or a positive are no negatives of each other, so together in a batch they would have fewer. (Two rows may
share a negative: it is false for neither.)
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from itertools import cycle, islice

import numpy as np

from embedtrain.data.permutation import Permutation
from embedtrain.data.read.sources import Example
from embedtrain.types import Content

PER_OCTAVE = 4  # lengths within 19 % are one bucket


def full_batches(
    examples: Sequence[Example],
    count: int,
    size: int,
    *,
    key: tuple[int, ...],
    alone: Collection[str] = (),
    group_by_length: bool = False,
) -> list[list[int]]:
    """`count` batches of `size` row numbers each, in an order drawn by the key.

    A row joins the first batch with room after those that hold its rivals. The rows that no batch can take
    so are spread over all of them, and the last of these are left out where there are more rows than places.
    Every row is used at most once; only where there are fewer rows than places do some come again.

    Args:
        examples: the rows, one or more.
        count: batches, one or more.
        size: rows of a batch.
        key: what the order depends on.
        alone: datasets whose rows never are each other's negatives.
        group_by_length: rows of similar length share batches.
    """
    order = Permutation(len(examples), key)(np.arange(len(examples))).tolist()
    if group_by_length:
        order.sort(key=lambda row: _bucket(examples[row]))
    batches, aside = _apart(order, examples, count, size, alone)
    _spread(batches, aside[: len(aside) - max(0, len(order) - count * size)], size)
    again = cycle(order)
    for batch in batches:
        batch += islice(again, size - len(batch))
    if group_by_length:
        turn = Permutation(count, (*key, 1))(np.arange(count))
        batches = [batches[number] for number in turn.tolist()]
    return batches


def _apart(
    order: Iterable[int], examples: Sequence[Example], count: int, size: int, alone: Collection[str]
) -> tuple[list[list[int]], list[int]]:
    """(`count` batches of at most `size` rows without a shared text, the rows that fit in none).

    One pass, near constant time a row: each text remembers the last batch that has it, and `later` is a
    union-find over batches that jumps full ones. Early batches are full, the last ones may not be.
    """
    batches: list[list[int]] = [[] for _ in range(count)]
    aside: list[int] = []
    later = list(range(count + 1))  # batch -> itself while it has room, else a later one; `count` is none
    last_any: dict[tuple[str, Content], int] = {}  # (task, content) -> last batch where a row has it
    last_labelled: dict[tuple[str, Content], int] = {}  # ... where it is a query or a positive
    for row in order:
        example = examples[row]
        contrasted = example.score is None and example.task not in alone
        labelled = [(example.task, t) for t in (example.query, *example.positives)] if contrasted else []
        negatives = [(example.task, text) for text in example.negatives]
        after = max(
            max((last_any.get(text, -1) for text in labelled), default=-1),
            max((last_labelled.get(text, -1) for text in negatives), default=-1),
        )
        batch = _with_room(after + 1, later)
        if batch == count:
            aside.append(row)
            continue
        batches[batch].append(row)
        if len(batches[batch]) == size:
            later[batch] = batch + 1
        for text in labelled:
            last_any[text] = last_labelled[text] = batch
        for text in negatives:
            last_any[text] = max(last_any.get(text, -1), batch)
    return batches, aside


def _with_room(batch: int, later: list[int]) -> int:
    """The first batch from `batch` on that is not full."""
    while later[batch] != batch:
        later[batch] = later[later[batch]]  # halve the path for the next one who asks
        batch = later[batch]
    return batch


def _spread(batches: list[list[int]], aside: Sequence[int], size: int) -> None:
    """Put the rows set aside evenly into all batches; the rows that they push out move where there is room.

    Just filling up would make whole batches of the one text that too many rows have: nothing to contrast.
    """
    displaced: list[int] = []
    for place, row in enumerate(aside):
        batch = batches[place * len(batches) // len(aside)]
        if len(batch) >= size:
            displaced.append(batch.pop(0))
        batch.append(row)
    waiting = iter(displaced)
    for batch in batches:
        batch += islice(waiting, size - len(batch))


def _bucket(example: Example) -> int:
    """Bucket of the longest content of a row: characters of a text, else its `len`."""
    longest = max(map(len, (example.query, *example.positives, *example.negatives)))
    return int(PER_OCTAVE * math.log2(1 + longest))
