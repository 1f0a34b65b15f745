"""Vectors on disk by key: written once by whichever process has them first, read by all through memory maps.

A cache is `<folder>/<first 16 digits of the identity>/`, with one append-only file a process that wrote, so
that ranks never write into each other's. A file is a header (magic, identity, width, dtype) and records of
fixed size (key, checksum, vector). A process that dies in the middle of a record leaves a tail that is not
read.
"""

from __future__ import annotations

import errno
import logging
import uuid
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from embedtrain.types import InputError

LOG = logging.getLogger(__name__)
VectorType = Literal["float16", "float32"]
KEY_BYTES = 16
MAGIC = b"ETVEC001"
HEADER_BYTES = 64
FULL = (errno.ENOSPC, errno.EDQUOT)


class VectorCache:
    """Vectors of one model by the key of what it read; memory grows by about 200 bytes a key.

    Args:
        folder: where caches are; one may hold those of many models.
        identity: 40 hexadecimal digits that name whatever decides a vector but its key.
        width: coordinates of a vector.
        dtype: how they are kept. What `rounded` gives comes back bit for bit.

    Raises:
        InputError: for a file there that is none of this cache's, or cannot be read or written; from `find`
            for a damaged record.
    """

    def __init__(
        self, folder: str | Path, *, identity: str, width: int, dtype: VectorType = "float32"
    ) -> None:
        if dtype not in get_args(VectorType):
            raise InputError(f"cache_dtype must be float16 or float32, got {dtype!r}")
        self.folder = Path(folder).expanduser() / f"{identity[:16]}-{dtype}"
        self.dtype = np.dtype(dtype)
        self.record = np.dtype(
            [("key", np.uint8, (KEY_BYTES,)), ("check", "<u4"), ("vector", self.dtype, (width,))]
        )
        header = MAGIC + identity.encode() + width.to_bytes(4, "little") + self.dtype.str.encode()
        self.header = header.ljust(HEADER_BYTES, b"\0")
        self._parts: dict[Path, NDArray[np.void]] = {}
        self._where: dict[bytes, tuple[Path, int]] = {}
        self._own: Path | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make the cache {self.folder}: {error.strerror}") from error
        self.refresh()

    def __len__(self) -> int:
        return len(self._where)

    def refresh(self) -> None:
        """Take in what this and other processes have written since."""
        for path in sorted(self.folder.glob("*.vectors")):
            count = (path.stat().st_size - HEADER_BYTES) // self.record.itemsize
            seen = len(self._parts[path]) if path in self._parts else 0
            if count > seen:
                self._take_in(path, seen, count)

    def find(self, keys: Sequence[bytes]) -> tuple[NDArray[np.bool_], NDArray[np.generic]]:
        """Which of the keys are there (n,), and their vectors in order (hits, width) in the cache's dtype."""
        if any(key not in self._where for key in keys):
            self.refresh()
        places = [self._where.get(key) for key in keys]
        found = [place for place in places if place is not None]
        vectors = np.empty((len(found), self.record["vector"].shape[0]), self.dtype)
        for row, (path, number) in enumerate(found):
            record = self._parts[path][number]
            if int(record["check"]) != _check(record["key"].tobytes(), record["vector"].tobytes()):
                raise InputError(
                    f"{path} is damaged (record {number}): delete this file; its texts are encoded again"
                )
            vectors[row] = record["vector"]
        return np.array([place is not None for place in places], dtype=np.bool_), vectors

    def rounded(self, vectors: NDArray[np.generic]) -> NDArray[np.generic]:
        """Vectors as they come back from the cache, so that a hit and a miss give one result."""
        return vectors.astype(self.dtype)

    def add(self, keys: Sequence[bytes], vectors: NDArray[np.generic]) -> None:
        """Append the vectors (n, width) of new keys to this process's file."""
        if not keys:
            return
        records = np.zeros(len(keys), self.record)
        for row, (key, vector) in enumerate(zip(keys, self.rounded(vectors), strict=True)):
            records[row] = (np.frombuffer(key, np.uint8), _check(key, vector.tobytes()), vector)
        path = self._own or self.folder / f"{uuid.uuid4().hex}.vectors"
        size = path.stat().st_size if path.exists() else 0
        try:
            with path.open("ab") as file:
                file.write((b"" if size else self.header) + records.tobytes())
        except OSError as error:
            if path.exists():  # half a record would shift all that follow
                with path.open("r+b") as file:
                    file.truncate(size)
            full = "the disk is full" if error.errno in FULL else str(error.strerror)
            raise InputError(f"cannot write to the cache {path}: {full}") from error
        self._own = path
        self.refresh()

    def _take_in(self, path: Path, seen: int, count: int) -> None:
        """Index the records seen..count of a file."""
        if not seen:
            with path.open("rb") as file:
                header = file.read(HEADER_BYTES)
            if header != self.header:
                raise InputError(
                    f"{path} holds no vectors of this model: delete it, or give another cache folder"
                )
        part = np.memmap(path, self.record, mode="r", offset=HEADER_BYTES, shape=(count,))
        keys = np.array(part["key"][seen:])  # (new, KEY_BYTES)
        unwritten = np.flatnonzero(~keys.any(axis=1))  # another process is still at it
        keys = keys[: unwritten[0]] if len(unwritten) else keys
        for number, key in enumerate(keys, start=seen):
            self._where.setdefault(key.tobytes(), (path, number))
        self._parts[path] = part[: seen + len(keys)]


def _check(key: bytes, vector: bytes) -> int:
    return zlib.crc32(vector, zlib.crc32(key))
