"""Where the vectors of a bank are: in memory up to a budget, then in a store that outlives the process.

Letters: L layers of the grid, M texts, D embedding width.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from embedtrain.model.folder.contract import text_hash
from embedtrain.ranks import all_ranks, wait, world_size
from embedtrain.types import InputError
from embedtrain.vectors.store import FILE_BITS, Places, VectorStore, VectorType, by_file

LOG = logging.getLogger(__name__)
ABSENT = -1  # the handle of a vector that is nowhere
GIB = 1024**3
_SHARED_SECONDS = 60.0  # after which a network file system must show what another machine wrote

Handles = Places  # 0 and more: a place in memory; -2 and less: -2 - a place in the store


class Keeping(NamedTuple):
    """What a user decides about vectors. Without a folder nothing outlives the process."""

    folder: Path | None = None  # of the store; that of all ranks, on a file system that they share
    store_gb: float | None = None  # what the folder may hold, in 2^30 bytes; None: no limit
    memory_gb: float | None = None  # vectors that each process holds in memory; None: no limit
    dtype: VectorType = "float32"  # in memory and on disk


IN_MEMORY = Keeping()


class Storage:
    """The vectors of all layers of texts, by handles.

    In float16, each layer's vector is scaled to length one first: middle layers of decoders overflow it, and
    no score depends on lengths.
    """

    def __init__(self, layers: Sequence[int], width: int, keeping: Keeping, identity: str) -> None:
        self.layers, self.width, self.keeping = tuple(layers), width, keeping
        self.dtype = torch.float16 if keeping.dtype == "float16" else torch.float32
        self.record_bytes = len(layers) * width * self.dtype.itemsize
        self._blocks: list[Tensor] = []  # (L, texts, D) each
        self._warned: set[str] = set()
        self.store: VectorStore | None = None
        if keeping.folder is not None:
            name = f"{identity} layers {list(self.layers)} width {width}"
            self.store = VectorStore(
                keeping.folder,
                identity=text_hash(name),
                width=len(layers) * width,
                dtype=keeping.dtype,
                limit=None if keeping.store_gb is None else int(keeping.store_gb * GIB),
            )

    def fits_memory(self, count: int) -> bool:
        """Whether `count` more texts stay within the memory that was granted."""
        limit = self.keeping.memory_gb
        held = sum(block.shape[1] for block in self._blocks)
        return limit is None or (held + count) * self.record_bytes <= limit * GIB

    def fits_store(self, count: int) -> bool:
        """Whether there is a store with room for `count` more texts; the first rank knows."""
        room = self.store is not None and self.store.make_room(count)
        return all_ranks(room)[0]

    def lacking(self, keys: Sequence[bytes]) -> float:
        """The share of the keys that the store does not have; 1 without a store or keys."""
        if self.store is None or not keys:
            return 1.0
        return float((self.store.locate(keys) < 0).mean())

    def find(self, keys: Sequence[bytes]) -> Handles:
        """Handles (M,) of what every rank finds in the store; ABSENT for the others."""
        handles = np.full(len(keys), ABSENT, np.int64)
        if self.store is None:
            return handles
        places = self.store.locate(keys)
        # what one rank does not see, or not whole, is encoded again by all
        there = np.logical_and.reduce(all_ranks(places >= 0))
        handles[there] = -2 - places[there]
        if there.any() and self.fits_memory(int(there.sum())):
            rows = torch.from_numpy(self.store.read(places[there]))
            values = rows.view(len(rows), len(self.layers), self.width).permute(1, 0, 2)
            handles[there] = self._in_memory(values)
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
        if stored and self.store is not None:
            rows = values.permute(1, 0, 2).reshape(len(own), self.store.width).numpy()
            self.store.add([keys[row] for row in own], rows)
        elif self.store is not None:
            self._warn_once(
                f"the folder of vectors {self.store.folder.parent} holds its {self.keeping.store_gb:g} GB: "
                "further vectors are not stored there, and a repeated sweep encodes them again"
            )
        if fits or not stored:
            if not fits:
                self._warn_once(
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
        vectors = torch.empty(len(handles), dim)
        disk = np.flatnonzero(handles < 0)
        if len(disk) and self.store is not None:
            begin = position * self.width
            part = self.store.read(-2 - handles[disk], slice(begin, begin + dim))
            vectors[torch.from_numpy(disk)] = torch.from_numpy(part).float()
        for block, rows, numbers in by_file(handles):
            held = self._blocks[block][position, :, :dim].index_select(0, torch.from_numpy(numbers))
            vectors[torch.from_numpy(rows)] = held.float()
        return vectors

    def rounded(self, values: Tensor) -> Tensor:
        """Vectors (L, M, D) as they will be read."""
        if self.dtype == torch.float16:
            values = torch.nn.functional.normalize(values.float(), dim=-1)
        return values.to(self.dtype)

    def _in_memory(self, values: Tensor) -> Handles:
        """Hold a copy of (L, M, D)."""
        self._blocks.append(values.clone(memory_format=torch.contiguous_format))
        return np.arange(values.shape[1], dtype=np.int64) | (len(self._blocks) - 1 << FILE_BITS)

    def _of_all(self, count: int, own: Sequence[int], values: Tensor) -> Tensor:
        """What all ranks encoded, (L, count, D)."""
        if world_size() == 1:
            return values
        whole = torch.empty(len(self.layers), count, self.width, dtype=self.dtype)
        for rows, part in all_ranks((list(own), values)):
            whole[:, torch.tensor(rows, dtype=torch.int64)] = part
        return whole

    def _located(self, keys: Sequence[bytes]) -> Places:
        """Places (M,) of keys that some rank has written just now, waiting for a slow file system."""
        assert self.store is not None
        end = time.monotonic() + _SHARED_SECONDS
        while ((places := self.store.locate(keys)) < 0).any():
            if time.monotonic() > end:
                raise InputError(
                    f"{self.store.folder} does not show what another rank wrote: give a store folder that "
                    "all machines share, or store=none"
                )
            time.sleep(0.2)
        return places

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            LOG.warning("%s", message)
