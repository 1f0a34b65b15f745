"""Keys to places, for many at once: sorted arrays instead of a dict, 16 bytes a key instead of 200."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class VectorIndex:
    """The place of each key, by the first 8 of its bytes; whoever asks compares the others.

    Keys come in batches, each a sorted run; two neighbouring runs are merged when the older is not twice the
    newer, so that there are O(log n) of them. Of equal keys the one that came first is found.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[NDArray[np.uint64], NDArray[np.int64]]] = []

    def __len__(self) -> int:
        return sum(len(run) for run, _ in self._runs)

    def find(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        """The places (n,) of keys (n, bytes), -1 where there is none."""
        asked = _heads(keys)
        places = np.full(len(asked), -1, np.int64)
        for run, where in self._runs:
            at = np.minimum(np.searchsorted(run, asked), len(run) - 1)
            hit = (run[at] == asked) & (places < 0)
            places[hit] = where[at[hit]]
        return places

    def add(self, keys: NDArray[np.uint8], places: NDArray[np.int64]) -> None:
        """Take in keys (n, bytes) at non-negative places (n,)."""
        if not len(places):
            return
        self._runs.append(_sorted(_heads(keys), places))
        while len(self._runs) > 1 and len(self._runs[-2][0]) < 2 * len(self._runs[-1][0]):
            (old, old_places), (new, new_places) = self._runs[-2:]
            self._runs[-2:] = [_sorted(np.concatenate([old, new]), np.concatenate([old_places, new_places]))]

    def remove(self, places: NDArray[np.int64]) -> None:
        """Forget the keys at these places."""
        kept = [(run, where, ~np.isin(where, places)) for run, where in self._runs]
        self._runs = [(run[stay], where[stay]) for run, where, stay in kept if stay.any()]


def _heads(keys: NDArray[np.uint8]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(keys[:, :8]).view(np.uint64).reshape(-1)


def _sorted(
    heads: NDArray[np.uint64], places: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    order = np.argsort(heads, kind="stable")
    return heads[order], places[order]
