"""Which rows train together at a step: a function of (data, seed, step) alone, with no state to save or lose.

The batch is planned for all ranks together and then sliced, so ranks agree without talking, every number of
ranks trains on the same global batches, and a resumed run needs nothing but its step.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from embedtrain.data.sources import Example
from embedtrain.types import InputError

logger = logging.getLogger(__name__)


class Ragged(NamedTuple):
    """A list of numbers for every row: those of row r are `values[starts[r] : starts[r + 1]]`.

    Flat, since a million small lists cost seconds of garbage collection.
    """

    values: list[int]
    starts: list[int]


class SharedTexts(NamedTuple):
    """For every row the numbers of those of its texts that other rows may have too."""

    texts: int  # numbers are 0..texts-1
    labelled: Ragged  # queries and positives
    negatives: Ragged


class GlobalBatches:
    """Full batches of row numbers for any step of a run, every epoch in a new order.

    Rows without scores serve each other as negatives: no batch holds two of them that share a text of which
    either makes a query or a positive, since the other row would call it a negative. (Two rows may share a
    negative: it is false for neither.) A row that cannot join the open batch waits for the first later one of
    its epoch that can take it.

    Every epoch has as many batches as epoch 0 can fill. An epoch whose order fills more leaves those out;
    one that fills fewer ends with its own first batches again. Rows left over rest until the next epoch.

    Args:
        examples: the rows; only read here, not kept.
        batch_size: rows per step over all ranks.
        seed: 0 or more.

    Raises:
        InputError: when no batch can be filled, or a batch of one row has nothing to contrast.
    """

    def __init__(self, examples: Sequence[Example], *, batch_size: int, seed: int) -> None:
        _check_size(examples, batch_size)
        if batch_size == 1:
            _check_own_negatives(examples)
        self.batch_size = batch_size
        self._count = len(examples)
        self._seed = seed
        contrasted = batch_size > 1 and any(example.score is None for example in examples)
        self._shared = _shared_texts(examples) if contrasted else None
        self._largest = batch_size
        self._cached: tuple[int, list[list[int]]] = (0, self._planned(0))
        self.batches_per_epoch = len(self._cached[1])
        if not self.batches_per_epoch:
            raise InputError(_nothing_fills(examples, batch_size, self._largest))
        left = self._count - self.batches_per_epoch * batch_size
        if left:
            logger.info("%d of %d rows are left out of each epoch, others every time: batches of %d are full "
                        "and share no text", left, self._count, batch_size)  # fmt: skip

    def epoch(self, step: int) -> int:
        """The epoch of a step counted over the whole run, from 0."""
        return step // self.batches_per_epoch

    def rows(self, step: int) -> list[int]:
        """Row numbers of the global batch of a step counted over the whole run, from 0."""
        epoch, position = divmod(step, self.batches_per_epoch)
        if self._cached[0] != epoch:
            self._cached = (epoch, self._full_length(self._planned(epoch)))
        return self._cached[1][position]

    def _planned(self, epoch: int) -> list[list[int]]:
        """The full batches of an epoch, as many as its order fills."""
        order = _order(self._count, self._seed, epoch)
        if self._shared is not None and self._shared.labelled.values:
            batches = fill(order.tolist(), self._shared, self.batch_size)
            self._largest = max(map(len, batches))
            return [batch for batch in batches if len(batch) == self.batch_size]
        full = len(order) // self.batch_size
        whole: list[list[int]] = order[: full * self.batch_size].reshape(full, -1).tolist()
        return whole

    def _full_length(self, batches: list[list[int]]) -> list[list[int]]:
        """As many batches as every epoch has. Epoch 0 stands in for an epoch that fills none at all."""
        source = batches or self._planned(0)
        return [source[position % len(source)] for position in range(self.batches_per_epoch)]


class EvenBatches:
    """All rows once and in order, in batches of `batch_size` rows or somewhat more.

    Validation needs every row exactly once, and no batch so short that a rank gets none of it: sizes are
    even, from `batch_size` to less than twice as much; fewer only when all rows together are fewer.
    """

    def __init__(self, count: int, *, batch_size: int) -> None:
        self._bounds = np.linspace(0, count, max(1, count // batch_size) + 1).astype(int).tolist()
        self.batches_per_epoch = len(self._bounds) - 1

    def epoch(self, step: int) -> int:
        """Always 0: validation never rotates positives or negatives."""
        return 0

    def rows(self, step: int) -> list[int]:
        """Row numbers of one batch."""
        return list(range(self._bounds[step], self._bounds[step + 1]))


def slice_for_rank(rows: Sequence[int], rank: int, world: int) -> Sequence[int]:
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


def fill(order: Iterable[int], shared: SharedTexts, batch_size: int) -> list[list[int]]:
    """Batches of at most `batch_size` rows without a shared text.

    A row goes to the first batch with room after those that hold its rivals. One pass, near constant time a
    row: each text remembers the last batch that has it, and `later` is a union-find over batches that jumps
    full ones. Early batches are full, the last ones may not be.
    """
    batches: list[list[int]] = []
    later: list[int] = []  # batch -> itself while it has room, else a later one
    (own, own_starts), (other, other_starts) = shared.labelled, shared.negatives
    last_any = [-1] * shared.texts  # text -> last batch where a row has it in any part
    last_labelled = [-1] * shared.texts  # text -> last batch where it is a query or a positive
    for row in order:
        labelled = own[own_starts[row] : own_starts[row + 1]]
        negatives = other[other_starts[row] : other_starts[row + 1]]
        after = -1
        for text in labelled:
            if last_any[text] > after:
                after = last_any[text]
        for text in negatives:
            if last_labelled[text] > after:
                after = last_labelled[text]
        batch = _with_room(after + 1, batches, later)
        batches[batch].append(row)
        if len(batches[batch]) == batch_size:
            later[batch] = batch + 1
        for text in labelled:
            last_any[text] = last_labelled[text] = batch
        for text in negatives:
            if last_any[text] < batch:
                last_any[text] = batch
    return batches


def _with_room(batch: int, batches: list[list[int]], later: list[int]) -> int:
    """The first batch from `batch` on that is not full, opened if need be."""
    while batch < len(later) and later[batch] != batch:
        if later[batch] < len(later):
            later[batch] = later[later[batch]]  # halve the path for the next one who asks
        batch = later[batch]
    while len(batches) <= batch:
        later.append(len(batches))
        batches.append([])
    return batch


def _order(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(count)


def _shared_texts(examples: Sequence[Example]) -> SharedTexts:
    """The texts that occur more than once and are a query or a positive somewhere.

    A million rows are numbered with one dict and sorted out as arrays: 2 s on one core.
    """
    number: dict[str, int] = {}
    named = number.setdefault
    sets = [(e.query, *e.positives) if e.score is None else () for e in examples]
    flat = [named(text, len(number)) for texts in sets for text in texts]
    labelled = np.array(flat, dtype=np.int64)
    count = len(number)  # texts from here on are negatives only: false for no row
    negatives = np.fromiter((number.get(t, count) for e in examples for t in e.negatives), dtype=np.int64)
    times = np.bincount(labelled, minlength=count + 1) + np.bincount(negatives, minlength=count + 1)
    shared = times > 1
    shared[count] = False
    return SharedTexts(
        count,
        _kept(labelled, np.array([len(texts) for texts in sets]), shared),
        _kept(negatives, np.array([len(e.negatives) for e in examples]), shared),
    )


def _kept(texts: np.ndarray, lengths: np.ndarray, shared: np.ndarray) -> Ragged:
    """The shared ones of all texts end to end (sum of lengths,), row by row as `lengths` (rows,) says."""
    kept = shared[texts]
    before = np.concatenate([[0], np.cumsum(kept)])  # shared texts before each position
    ends = np.concatenate([[0], np.cumsum(lengths)])
    return Ragged(texts[kept].tolist(), before[ends].tolist())


def _check_size(examples: Sequence[Example], batch_size: int) -> None:
    if batch_size < 1:
        raise InputError(f"batch_size must be 1 or more, got {batch_size}.")
    if batch_size > len(examples):
        raise InputError(
            f"batch_size={batch_size} is more than the {len(examples)} training rows. "
            f"Set batch_size to {len(examples)} or less."
        )


def _check_own_negatives(examples: Sequence[Example]) -> None:
    for example in examples:
        if example.score is None and not example.negatives:
            raise InputError(
                f"{example.where}: nothing to contrast: batch_size=1 brings no other row's positive as a "
                "negative and this row has no negatives of its own. Set batch_size to 2 or more, or add "
                "negatives."
            )


def _nothing_fills(examples: Sequence[Example], batch_size: int, largest: int) -> str:
    rows = [e for e in examples if e.score is None]
    counts = Counter(text for e in rows for text in {e.query, *e.positives, *e.negatives})
    text, most = counts.most_common(1)[0]
    if most == len(examples):
        return (
            f"all {most} rows share the text {text[:80]!r}: there is nothing to contrast. Add rows about "
            "something else, or give every row a score."
        )
    return (
        f"no batch of {batch_size} rows without a shared text can be filled (the largest has {largest}): "
        f"the text {text[:80]!r} alone is in {most} of {len(examples)} rows. Set batch_size to {largest} or "
        "less, or remove repeated rows."
    )
