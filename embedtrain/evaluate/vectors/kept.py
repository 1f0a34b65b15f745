"""Where the vectors of a bank are: in memory up to a budget, then in a folder that outlives the process.

Letters: L layers kept, M texts, D embedding width.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embedtrain.model.folder.contract import text_hash
from embedtrain.ranks import everyone, wait, world_size
from embedtrain.types import InputError
from embedtrain.vectors.cache import VectorCache, VectorType

LOG = logging.getLogger(__name__)
ABSENT = -1  # the handle of a vector that is nowhere; others are rows in memory (0..) or on disk (..-2)
GIB = 1024**3
_BLOCK_BYTES = 2**26
_PATIENCE_SECONDS = 60.0  # network file systems may show a file of another machine so much later

Handles = NDArray[np.int64]


class Keeping(NamedTuple):
    """What a user decides about vectors. Without a folder nothing outlives the process."""

    folder: Path | None = None  # of the store; that of all ranks, on a file system that they share
    store_gb: float | None = None  # what the folder may hold, in 2^30 bytes; None: no limit
    memory_gb: float | None = None  # vectors that each process holds in memory; None: no limit
    dtype: VectorType = "float32"  # in memory and on disk


IN_MEMORY = Keeping()


class Kept:
    """The vectors of all layers of texts, by handles.

    Memory is filled block by block, so that nothing is ever copied to grow. In float16, each layer's vector
    is scaled to length one first: middle layers of decoders overflow it, and no score depends on lengths.
    """

    def __init__(self, layers: Sequence[int], width: int, keeping: Keeping, identity: str) -> None:
        self.layers, self.width, self.keeping = tuple(layers), width, keeping
        self.dtype = torch.float16 if keeping.dtype == "float16" else torch.float32
        self.record_bytes = len(layers) * width * self.dtype.itemsize
        self._blocks: list[Tensor] = []  # (L, capacity, D) each
        self._starts: list[int] = []  # first row of each block
        self._used = 0
        self._said: set[str] = set()
        self.cache: VectorCache | None = None
        if keeping.folder is not None:
            name = f"{identity} layers {list(self.layers)} width {width}"
            self.cache = VectorCache(
                keeping.folder,
                identity=text_hash(name),
                width=len(layers) * width,
                dtype=keeping.dtype,
                limit=None if keeping.store_gb is None else int(keeping.store_gb * GIB),
            )

    def fits_memory(self, count: int) -> bool:
        """Whether so many more texts stay within the memory that was granted."""
        limit = self.keeping.memory_gb
        return limit is None or (self._used + count) * self.record_bytes <= limit * GIB

    def fits_store(self, count: int) -> bool:
        """Whether there is a store with room for so many more texts; the first rank knows."""
        room = self.cache is not None and self.cache.make_room(count)
        return everyone(room)[0]

    def lacking(self, keys: Sequence[bytes]) -> float:
        """The share of the keys that the store does not have; 1 without a store or keys."""
        if self.cache is None or not keys:
            return 1.0
        return float((self.cache.locate(keys) < 0).mean())

    def find(self, keys: Sequence[bytes]) -> Handles:
        """Handles (M,) of what the store has and every rank reads undamaged; ABSENT for the others."""
        handles = np.full(len(keys), ABSENT, np.int64)
        if self.cache is None:
            return handles
        places = self.cache.locate(keys)
        there = places >= 0
        there[there] = self.cache.sound(places[there])
        # what one rank does not see, or not whole, is encoded again by all
        there = np.logical_and.reduce(everyone(there))
        if there.any():
            handles[there] = self._taken(places[there])
        return handles

    def add(self, keys: Sequence[bytes], values: Tensor, mine: Sequence[int] | None = None) -> Handles:
        """Take in vectors (L, M, D) of texts that are not here yet; their handles (M,).

        Where several ranks share the work each gives what it encoded: `mine` are the numbers of its texts
        among the keys, and `values` are theirs alone.

        Raises:
            InputError: if the store cannot be written or read.
        """
        own = list(range(len(keys))) if mine is None else list(mine)
        values = self.rounded(values)
        fits, stored = self.fits_memory(len(keys)), self.fits_store(len(keys))
        if stored and self.cache is not None:
            rows = values.permute(1, 0, 2).reshape(len(own), self.cache.width).numpy()
            self.cache.add([keys[row] for row in own], rows)
        elif self.cache is not None:
            self._say_once(
                f"the folder of vectors {self.cache.folder.parent} holds its {self.keeping.store_gb:g} GB: "
                "further vectors are not kept there, and a repeated sweep encodes them again"
            )
        if fits or not stored:
            if not fits:
                self._say_once(
                    f"vectors exceed memory_gb={self.keeping.memory_gb:g} and there is no store with room: "
                    "memory grows; give a folder with room (store, store_gb), fewer layers or "
                    "store_dtype=float16"
                )
            return self._in_memory(self._of_all(len(keys), own, values))
        wait()
        return -2 - self._located(keys)

    def read(self, handles: Handles, layer: int, dim: int) -> Tensor:
        """The first `dim` coordinates at one of the layers, (M, dim) float32, not normalised."""
        position = self.layers.index(layer)
        found = torch.empty(len(handles), dim)
        disk = np.flatnonzero(handles < 0)
        if len(disk) and self.cache is not None:
            begin = position * self.width
            part = self.cache.read(-2 - handles[disk], slice(begin, begin + dim))
            found[torch.from_numpy(disk)] = torch.from_numpy(part).float()
        blocks = np.searchsorted(self._starts, handles, side="right") - 1  # -1 for what is on disk
        for number, block in enumerate(self._blocks):
            rows = np.flatnonzero(blocks == number)
            inside = torch.from_numpy(handles[rows] - self._starts[number])
            found[torch.from_numpy(rows)] = block[position, :, :dim].index_select(0, inside).float()
        return found

    def rounded(self, values: Tensor) -> Tensor:
        """Vectors (L, M, D) as they will be read."""
        if self.dtype == torch.float16:
            values = torch.nn.functional.normalize(values.float(), dim=-1)
        return values.to(self.dtype)

    def _in_memory(self, values: Tensor) -> Handles:
        """Copy (L, M, D) into the blocks."""
        count, done = values.shape[1], 0
        handles = np.arange(self._used, self._used + count, dtype=np.int64)
        while done < count:
            room = self._starts[-1] + self._blocks[-1].shape[1] - self._used if self._blocks else 0
            if not room:
                largest = max(1, _BLOCK_BYTES // self.record_bytes)
                capacity = min(max(count - done, self._used), largest)
                self._starts.append(self._used)
                self._blocks.append(torch.empty(len(self.layers), capacity, self.width, dtype=self.dtype))
                room = capacity
            taken, inside = min(room, count - done), self._used - self._starts[-1]
            self._blocks[-1][:, inside : inside + taken] = values[:, done : done + taken]
            self._used, done = self._used + taken, done + taken
        return handles

    def _taken(self, places: NDArray[np.int64]) -> Handles:
        """Handles of what is at these places of the store: copied to memory if it fits."""
        if self.cache is None or not self.fits_memory(len(places)):
            return -2 - places
        rows = torch.from_numpy(self.cache.read(places))
        return self._in_memory(rows.view(len(places), len(self.layers), self.width).permute(1, 0, 2))

    def _of_all(self, count: int, own: Sequence[int], values: Tensor) -> Tensor:
        """What all ranks encoded, (L, count, D)."""
        if world_size() == 1:
            return values
        whole = torch.empty(len(self.layers), count, self.width, dtype=self.dtype)
        for rows, part in everyone((list(own), values)):
            whole[:, torch.tensor(rows, dtype=torch.int64)] = part
        return whole

    def _located(self, keys: Sequence[bytes]) -> NDArray[np.int64]:
        """Places (M,) of keys that some rank has written just now, waiting for a slow file system."""
        assert self.cache is not None
        end = time.monotonic() + _PATIENCE_SECONDS
        while True:
            places = self.cache.locate(keys)
            if (places >= 0).all() and (world_size() == 1 or self.cache.sound(places, forget=False).all()):
                return places
            if time.monotonic() > end:
                raise InputError(
                    f"{self.cache.folder} does not show what another rank wrote: give a store folder that "
                    "all machines share, or store=none"
                )
            time.sleep(0.2)

    def _say_once(self, what: str) -> None:
        if what not in self._said:
            self._said.add(what)
            LOG.warning("%s", what)
