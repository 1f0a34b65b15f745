"""Elements of several kinds in one line, each kind spread evenly over it: computed, not stored.

Kind d has c_d elements. Its element j has the time (j + u) / c_d, u being drawn from (seed, d, j), and the
line is in the order of times. So any stretch of the line holds close to its share of every kind, the elements
of a kind come in their own order, and the element at a position is a function of (counts, seed) alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]

STEP = np.uint64(0x9E3779B97F4A7C15)  # splitmix64 (Steele et al. 2014)
MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


class Interleaved:
    """The line of all elements; O(number of kinds) memory.

    Args:
        counts: elements of each kind, D of them; together 1 or more.
        seed: decides the draws.
    """

    def __init__(self, counts: Sequence[int], seed: int) -> None:
        self.counts = np.array(counts, dtype=np.int64)  # (D,)
        self.total = int(self.counts.sum())
        keys = [
            hashlib.blake2b(f"{seed},{kind}".encode(), digest_size=8).digest() for kind in range(len(counts))
        ]
        self._keys = np.array([int.from_bytes(key, "little") for key in keys], dtype=np.uint64)
        self._kinds = np.arange(len(counts))

    def before(self, position: int) -> Numbers:
        """How many elements of each kind come before a position 0..total, (D,)."""
        spread = len(self.counts) + 1  # a kind's count until a time is within 1 of its share
        low = max(0.0, (position - spread) / self.total)
        high = 2.0 if position + spread >= self.total else (position + spread) / self.total
        while True:
            middle = (low + high) / 2
            counts = self._until(middle)
            here = int(counts.sum())
            if here == position:
                return counts
            if middle in (low, high):
                return self._among_equal_times(low, high, position)
            low, high = (middle, high) if here < position else (low, middle)

    def stretch(self, first: int, last: int) -> tuple[Numbers, Numbers]:
        """(kind, number within its kind) of the elements at positions first..last-1."""
        start, end = self.before(first), self.before(last)
        kinds = np.repeat(self._kinds, end - start)
        offset = np.cumsum(end - start) - (end - start)  # elements of kinds before, in this stretch
        numbers = np.arange(last - first) - np.repeat(offset, end - start) + start[kinds]
        order = np.lexsort((numbers, kinds, self._times(kinds, numbers)))
        return kinds[order], numbers[order]

    def _until(self, time: float) -> Numbers:
        """How many elements of each kind have an earlier time, (D,)."""
        near = np.floor(time * self.counts).astype(np.int64)
        earlier: Numbers = np.clip(near - 1, 0, self.counts)
        for number in (near - 1, near, near + 1):
            inside = (number >= 0) & (number < self.counts)
            earlier += inside & (self._times(self._kinds, np.maximum(number, 0)) < time)
        return earlier

    def _among_equal_times(self, low: float, high: float, position: int) -> Numbers:
        """As `before`, where several elements have one time: they come in the order of their kinds."""
        early, more = self._until(low), self._until(high) - self._until(low)
        ahead = np.cumsum(more) - more
        taken: Numbers = early + np.clip(position - int(early.sum()) - ahead, 0, more)
        return taken

    def _times(self, kinds: Numbers, numbers: Numbers) -> NDArray[np.float64]:
        mixed = self._keys[kinds] + (numbers.astype(np.uint64) + np.uint64(1)) * STEP
        mixed = (mixed ^ (mixed >> np.uint64(30))) * MIX[0]
        mixed = (mixed ^ (mixed >> np.uint64(27))) * MIX[1]
        mixed ^= mixed >> np.uint64(31)
        draws = (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53
        times: NDArray[np.float64] = (numbers + draws) / np.maximum(self.counts[kinds], 1)
        return times
