"""Vectors on disk by key: written once by whichever process has them first, read by all through memory maps.

A cache is `<folder>/<first 16 digits of the identity>-<dtype>/`, with one append-only file a process that
wrote (`vector_file.py`), so that ranks never write into each other's. It serves guides, a vector a text, and
evaluation, the vectors of all layers a text. Everything is done for many keys at once.

Letters: n keys, W coordinates of a vector.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from embedtrain.types import InputError
from embedtrain.vectors.file import (
    BURIED,
    HEADER_BYTES,
    KEY_BYTES,
    Records,
    append,
    bury,
    checksums,
    make_header,
    record_type,
    whole,
)
from embedtrain.vectors.index import VectorIndex

LOG = logging.getLogger(__name__)
VectorType = Literal["float16", "float32"]
IN_USE_SECONDS = 3600.0  # a cache that somebody opened or wrote to since is not removed to make room
_FILE_BITS = 40  # a place is the number of a file, shifted so far, and the number of a record in it

__all__ = ["KEY_BYTES", "VectorCache", "VectorType"]


class VectorCache:
    """Vectors of one model by the key of what it read; memory grows by 16 bytes a key.

    Args:
        folder: where caches are; one may hold those of many models.
        identity: 40 hexadecimal digits that name whatever decides a vector but its key.
        width: coordinates of a vector, W.
        dtype: how they are kept. What `rounded` gives comes back bit for bit.
        limit: bytes that the whole folder may hold; None for no limit. Where there is no more room, caches of
            other models that were not in use for an hour go, the longest unused first.

    Raises:
        InputError: for a file there that is none of this cache's, or cannot be read or written.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        identity: str,
        width: int,
        dtype: VectorType = "float32",
        limit: int | None = None,
    ) -> None:
        if dtype not in get_args(VectorType):
            raise InputError(f"cache_dtype must be float16 or float32, got {dtype!r}")
        self.folder = Path(folder).expanduser() / f"{identity[:16]}-{dtype}"
        self.dtype, self.width, self.limit = np.dtype(dtype), width, limit
        self.record = record_type(width, self.dtype)
        self.header = make_header(identity, width, self.dtype)
        self._paths: list[Path] = []
        self._parts: list[Records] = []
        self._left_out: set[Path] = set()
        self._index = VectorIndex()
        self._own: Path | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            os.utime(self.folder)
        except OSError as error:
            raise InputError(f"cannot make the cache {self.folder}: {error.strerror}") from error
        self.refresh()

    def __len__(self) -> int:
        return len(self._index)

    def refresh(self) -> None:
        """Take in what this and other processes have written since."""
        for path in sorted(self.folder.glob("*.vectors")):
            known = self._paths.index(path) if path in self._paths else None
            seen = 0 if known is None else len(self._parts[known])
            count = (path.stat().st_size - HEADER_BYTES) // self.record.itemsize
            if count > seen and path not in self._left_out:
                self._take_in(path, known, seen, count)

    def locate(self, keys: Sequence[bytes]) -> NDArray[np.int64]:
        """Where the vectors of the keys are (n,), for `sound` and `read`; -1 for a key that is not there."""
        places = self._places(keys)
        if (places < 0).any():
            self.refresh()
            places = self._places(keys)
        return places

    def sound(self, places: NDArray[np.int64], *, forget: bool = True) -> NDArray[np.bool_]:
        """Whether the records (n,) have the right checksum. Others are forgotten, with a warning."""
        good = np.ones(len(places), np.bool_)
        for file, rows, numbers in self._by_file(places):
            part = self._parts[file]
            step = max(1, 2**24 // self.record.itemsize)
            for start in range(0, len(rows), step):
                records = part[numbers[start : start + step]]
                good[rows[start : start + step]] = records["check"] == checksums(records)
            if forget:  # not what another process may still be writing
                self._forget(file, places[rows][~good[rows]])
        return good

    def read(self, places: NDArray[np.int64], columns: slice = slice(None)) -> NDArray[np.generic]:
        """Some columns of the vectors at these places (n, columns), in the cache's dtype, unchecked."""
        start, stop, step = columns.indices(self.width)  # a record may be padded
        columns = slice(start, stop, step)
        vectors = np.empty((len(places), len(range(start, stop, step))), self.dtype)
        for file, rows, numbers in self._by_file(places):
            vectors[rows] = self._parts[file]["vector"][numbers, columns]
        return vectors

    def find(self, keys: Sequence[bytes]) -> tuple[NDArray[np.bool_], NDArray[np.generic]]:
        """Which of the keys are there (n,), and their vectors in order (hits, W) in the cache's dtype.

        A damaged record is one that is not there.
        """
        places = self.locate(keys)
        there = places >= 0
        there[there] = self.sound(places[there])
        return there, self.read(places[there])

    def rounded(self, vectors: NDArray[np.generic]) -> NDArray[np.generic]:
        """Vectors as they come back from the cache, so that a hit and a miss give one result."""
        return vectors.astype(self.dtype)

    def add(self, keys: Sequence[bytes], vectors: NDArray[np.generic]) -> None:
        """Append the vectors (n, W) of new keys to this process's file.

        Raises:
            InputError: if they cannot be written; nothing is lost then.
        """
        if not keys:
            return
        path = self._own or self.folder / f"{uuid.uuid4().hex}.vectors"
        append(path, self.header, self.record, keys, vectors)
        self._own = path
        self.refresh()

    def make_room(self, count: int) -> bool:
        """Whether so many more vectors fit the limit; caches of other models go where need be."""
        if self.limit is None:
            return True
        sizes = {folder: _size(folder) for folder in self.folder.parent.iterdir() if folder.is_dir()}
        needed = count * self.record.itemsize
        if sizes.pop(self.folder) + needed > self.limit:
            return False
        over = _size(self.folder) + sum(sizes.values()) + needed - self.limit
        since = time.time() - IN_USE_SECONDS
        for folder in sorted(sizes, key=_used):
            if over > 0 and _used(folder) < since:
                LOG.warning("%s goes: the folder of vectors is full, and it was unused the longest", folder)
                shutil.rmtree(folder, ignore_errors=True)
                over -= sizes[folder]
        return over <= 0

    def _places(self, keys: Sequence[bytes]) -> NDArray[np.int64]:
        """As `locate`, without looking for new files."""
        asked = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES)  # (n, KEY_BYTES)
        places = self._index.find(asked)
        other = self._other_keys(asked, places)
        if other.any() and not self.sound(places[other]).all():
            places = self._index.find(asked)  # a damaged key was in the way of a sound one
            other = self._other_keys(asked, places)
        places[other] = -1
        return places

    def _other_keys(self, asked: NDArray[np.uint8], places: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Where the index, which knows the first half of a key, found one that differs in the second."""
        other = np.zeros(len(asked), np.bool_)
        for file, rows, numbers in self._by_file(places):
            other[rows] = (self._parts[file]["key"][numbers] != asked[rows]).any(axis=1)
        return other

    def _by_file(self, places: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
        """Of each file with any of the places: its number, rows of `places`, records in ascending order."""
        order = np.argsort(places, kind="stable")
        order = order[np.searchsorted(places[order], 0) :]
        files, starts = np.unique(places[order] >> _FILE_BITS, return_index=True)
        parts = np.split(order, starts[1:])
        mask = (1 << _FILE_BITS) - 1
        return [(int(file), rows, places[rows] & mask) for file, rows in zip(files, parts, strict=False)]

    def _forget(self, file: int, damaged: NDArray[np.int64]) -> None:
        if not len(damaged):
            return
        numbers = damaged & ((1 << _FILE_BITS) - 1)
        self._index.remove(damaged)
        bury(self._paths[file], self.record, numbers)
        LOG.warning(
            "%s is damaged (%d records, the first is %d): these texts are encoded again",
            self._paths[file],
            len(numbers),
            numbers.min(),
        )

    def _take_in(self, path: Path, known: int | None, seen: int, count: int) -> None:
        """Index the records seen..count of a file."""
        if known is None and not self._ours(path):
            self._left_out.add(path)
            return
        part = np.memmap(path, self.record, mode="r", offset=HEADER_BYTES, shape=(count,))
        keys = np.array(part["key"][seen:])  # (new, KEY_BYTES)
        unwritten = np.flatnonzero(~keys.any(axis=1))  # another process is still at it
        keys = keys[: unwritten[0]] if len(unwritten) else keys
        if known is None:
            known = len(self._paths)
            self._paths.append(path)
            self._parts.append(part[:0])
        numbers = np.arange(seen, seen + len(keys), dtype=np.int64)
        alive = (keys != BURIED).any(axis=1)
        self._index.add(keys[alive], numbers[alive] | (known << _FILE_BITS))
        self._parts[known] = part[: seen + len(keys)]

    def _ours(self, path: Path) -> bool:
        """Whether a file's header is this cache's; a damaged one is left out with a warning."""
        with path.open("rb") as file:
            header = file.read(HEADER_BYTES)
        if header == self.header:
            return True
        if whole(header):
            raise InputError(
                f"{path} holds no vectors of this model: delete it, or give another cache folder"
            )
        LOG.warning("%s starts damaged and is not read: delete it; its texts are encoded again", path)
        return False


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.vectors"))


def _used(folder: Path) -> float:
    """When somebody last opened a cache or wrote to it, seconds since 1970."""
    return max(path.stat().st_mtime for path in (folder, *folder.glob("*.vectors")))
