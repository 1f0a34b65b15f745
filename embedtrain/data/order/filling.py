"""Rows of one window to full batches that share as few texts as can be.

Rows without scores serve each other as negatives. Two of them that share a text of which either makes a query
or a positive are no negatives of each other, so together in a batch they would have fewer. (Two rows may
share a negative: it is false for neither.)
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from itertools import cycle, islice
from typing import NamedTuple

import numpy as np

from embedtrain.data.permutation import Permutation
from embedtrain.data.read.sources import Example

PER_OCTAVE = 4  # lengths within 19 % are one bucket


class Ragged(NamedTuple):
    """A list of numbers for every row: those of row r are `values[starts[r] : starts[r + 1]]`.

    Flat, since many small lists cost seconds of garbage collection.
    """

    values: list[int]
    starts: list[int]


class SharedTexts(NamedTuple):
    """For every row the numbers of those of its texts that other rows may have too."""

    texts: int  # numbers are 0..texts-1
    labelled: Ragged  # queries and positives
    negatives: Ragged


class Filled(NamedTuple):
    """Full batches of row numbers, and how many rows share a text with another row of their batch."""

    batches: list[list[int]]
    sharing: int


def filled(
    examples: Sequence[Example],
    count: int,
    size: int,
    *,
    key: tuple[int, ...],
    alone: Collection[str] = (),
    group_by_length: bool = False,
) -> Filled:
    """`count` batches of `size` rows each, in an order drawn by the key.

    A row goes to the first batch with room after those that hold its rivals. The rows that no batch can take
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
    shared = shared_texts(examples, alone)
    if shared.labelled.values:
        batches, aside = fill(order, shared, size, count)
    else:
        batches = [order[number * size : (number + 1) * size] for number in range(count)]
        aside = []
    aside = aside[: len(aside) - max(0, len(order) - count * size)]
    _spread(batches, aside, size)
    again = cycle(order)
    for batch in batches:
        batch += islice(again, size - len(batch))
    if group_by_length:
        turn = Permutation(count, (*key, 1))(np.arange(count))
        batches = [batches[number] for number in turn.tolist()]
    return Filled(batches, len(aside))


def fill(
    order: Iterable[int], shared: SharedTexts, size: int, count: int
) -> tuple[list[list[int]], list[int]]:
    """(at most `count` batches of at most `size` rows without a shared text, the rows that fit in none).

    One pass, near constant time a row: each text remembers the last batch that has it, and `later` is a
    union-find over batches that jumps full ones. Early batches are full, the last ones may not be.
    """
    batches: list[list[int]] = [[] for _ in range(count)]
    aside: list[int] = []
    later = list(range(count + 1))  # batch -> itself while it has room, else a later one; `count` is none
    (own, own_starts), (other, other_starts) = shared.labelled, shared.negatives
    last_any = [-1] * shared.texts  # text -> last batch where a row has it in any part
    last_labelled = [-1] * shared.texts  # text -> last batch where it is a query or a positive
    for row in order:
        labelled = own[own_starts[row] : own_starts[row + 1]]
        negatives = other[other_starts[row] : other_starts[row + 1]]
        after = max([last_any[text] for text in labelled], default=-1)
        if negatives:
            after = max(after, *[last_labelled[text] for text in negatives])
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
            if last_any[text] < batch:
                last_any[text] = batch
    return batches, aside


def _with_room(batch: int, later: list[int]) -> int:
    """The first batch from `batch` on that is not full."""
    while later[batch] != batch:
        later[batch] = later[later[batch]]  # halve the path for the next one who asks
        batch = later[batch]
    return batch


def _spread(batches: list[list[int]], aside: Sequence[int], size: int) -> None:
    """Put the rows set aside evenly into all batches; what they push out goes where there is room.

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


def shared_texts(examples: Sequence[Example], alone: Collection[str] = ()) -> SharedTexts:
    """The texts of a task that occur more than once and are a query or a positive of an unscored row."""
    number: dict[tuple[str, str], int] = {}
    named = number.setdefault
    sets = [() if _apart(e, alone) else (e.query, *e.positives) for e in examples]
    flat = [named((e.task, text), len(number)) for e, own in zip(examples, sets, strict=True) for text in own]
    labelled = np.array(flat, dtype=np.int64)
    count = len(number)  # texts from here on are negatives only: false for no row
    others = [number.get((e.task, text), count) for e in examples for text in e.negatives]
    negatives = np.array(others, dtype=np.int64)
    times = np.bincount(labelled, minlength=count + 1) + np.bincount(negatives, minlength=count + 1)
    shared = times > 1
    shared[count] = False
    return SharedTexts(
        count,
        _kept(labelled, np.array([len(texts) for texts in sets]), shared),
        _kept(negatives, np.array([len(e.negatives) for e in examples]), shared),
    )


def _apart(example: Example, alone: Collection[str]) -> bool:
    """Whether other rows are no negatives of this one, whatever their texts."""
    return example.score is not None or example.task in alone


def _kept(texts: np.ndarray, lengths: np.ndarray, shared: np.ndarray) -> Ragged:
    """The shared ones of all texts end to end (sum of lengths,), row by row as `lengths` (rows,) says."""
    kept = shared[texts]
    before = np.concatenate([[0], np.cumsum(kept)])  # shared texts before each position
    ends = np.concatenate([[0], np.cumsum(lengths)])
    return Ragged(texts[kept].tolist(), before[ends].tolist())


def _bucket(example: Example) -> int:
    """Bucket of the longest text of a row, in characters."""
    longest = max(map(len, (example.query, *example.positives, *example.negatives)))
    return int(PER_OCTAVE * math.log2(1 + longest))
