"""Vectors on disk by key: whichever process has a vector first writes it, all read it through memory maps.

A store is `<folder>/<first 16 digits of the identity>-<dtype>/`, with one append-only file for each process
that wrote (`records.py`), so that ranks never write into each other's. It serves guides (a vector a text),
mining (likewise, and a record for many scores of a cross-encoder) and evaluation (a record for the vectors of
all layers of a text). Everything is done for many keys at once.

Letters: n keys, W coordinates of a vector.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from embedtrain.files import owned
from embedtrain.types import InputError
from embedtrain.vectors.records import (
    AT_ONCE,
    HEADER_BYTES,
    KEY_BYTES,
    MAGIC,
    Records,
    append,
    checksums,
    make_header,
    record_type,
)

LOG = logging.getLogger(__name__)
VectorType = Literal["float16", "float32"]
IN_USE_SECONDS = 3600.0  # a store that somebody opened or wrote to since is not removed to make room
FILE_BITS = 40

Places = NDArray[np.int64]


def key_of(*parts: object) -> bytes:
    """A key that is equal just where all parts are: texts, numbers and None."""
    return hashlib.blake2b(ascii(parts).encode(), digest_size=KEY_BYTES).digest()


def by_file(places: Places) -> Iterator[tuple[int, Places, Places]]:
    """Of each file with any of the places (n,): its number, their rows in `places`, their numbers inside.

    A place is number of file << FILE_BITS | number of record; negative ones are nowhere and left out.
    """
    order = np.argsort(places, kind="stable")
    order = order[np.searchsorted(places[order], 0) :]
    files, starts = np.unique(places[order] >> FILE_BITS, return_index=True)
    for file, rows in zip(files.tolist(), np.split(order, starts[1:]), strict=False):
        yield file, rows, places[rows] & ((1 << FILE_BITS) - 1)


class VectorStore:
    """Vectors of one model by the key of what it read; memory grows by 16 bytes a key.

    Args:
        folder: where stores are; one may hold those of many models.
        identity: 40 hexadecimal digits that name whatever decides a vector but its key.
        width: coordinates of a vector, W.
        dtype: of the vectors on disk. What `rounded` gives comes back bit for bit.
        limit: bytes that the whole folder may hold; None for no limit. Where there is no more room, stores of
            other models that were not in use for an hour are deleted, the longest unused first.

    Raises:
        InputError: for a folder that cannot be made or written.
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
        self._files: dict[Path, Records] = {}  # in the order of their numbers
        self._left_out: set[Path] = set()
        self._index = _Index()
        self._own: Path | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            os.utime(self.folder)
        except OSError as error:
            raise InputError(f"cannot make the vector store {self.folder}: {error.strerror}") from error
        self.refresh()

    def __len__(self) -> int:
        return len(self._index)

    def refresh(self) -> bool:
        """Take in what this and other processes have written since; whether there was anything."""
        before = len(self)
        for path in sorted(self.folder.glob("*.vectors")):
            seen = len(self._files.get(path, ()))
            count = (path.stat().st_size - HEADER_BYTES) // self.record.itemsize
            if count > seen and path not in self._left_out:
                if path in self._files or self._is_readable(path):
                    self._take_in(path, seen, count)
                else:
                    self._left_out.add(path)
        return len(self) > before

    def locate(self, keys: Sequence[bytes]) -> Places:
        """Where the vectors of the keys are (n,), for `read`; -1 for a key that is not there.

        A damaged record is not there, and a warning says so; one that is added again is there.
        """
        asked = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES)  # (n, KEY_BYTES)
        places = self._sound(asked)
        missing = np.flatnonzero(places < 0)
        if len(missing) and self.refresh():
            places[missing] = self._sound(asked[missing])
        return places

    def read(self, places: Places, columns: slice = slice(None)) -> NDArray[np.generic]:
        """Some columns of the vectors at these places (n, columns), in the store's dtype, unchecked."""
        start, stop, step = columns.indices(self.width)  # a record may be padded
        vectors = np.empty((len(places), len(range(start, stop, step))), self.dtype)
        files = list(self._files.values())
        for file, rows, numbers in by_file(places):
            vectors[rows] = files[file]["vector"][numbers, start:stop:step]
        return vectors

    def find(self, keys: Sequence[bytes]) -> tuple[NDArray[np.bool_], NDArray[np.generic]]:
        """Which of the keys are there (n,), and their vectors in order (hits, W) in the store's dtype."""
        places = self.locate(keys)
        there = places >= 0
        return there, self.read(places[there])

    def rounded(self, vectors: NDArray[np.generic]) -> NDArray[np.generic]:
        """Vectors as they come back from the store, so that a hit and a miss give one result."""
        return vectors.astype(self.dtype)

    def add(self, keys: Sequence[bytes], vectors: NDArray[np.generic]) -> None:
        """Append the vectors (n, W) of the keys to this process's file.

        Raises:
            InputError: if they cannot be written; what was there before is safe.
        """
        if not keys:
            return
        # Names rise with time: of two records of a key the newer counts, which replaces a damaged one.
        path = self._own or self.folder / f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.vectors"
        self._own = None
        append(path, self.header, self.record, keys, vectors)
        self._own = path
        self.refresh()

    def make_room(self, count: int) -> bool:
        """Whether `count` more vectors fit the limit; stores of other models are deleted where need be."""
        if self.limit is None:
            return True
        folders = [path for path in self.folder.parent.iterdir() if path == self.folder or _is_store(path)]
        sizes = {path: sum(file.stat().st_size for file in path.glob("*.vectors")) for path in folders}
        needed = count * self.record.itemsize
        over = sum(sizes.values()) + needed - self.limit
        if sizes.pop(self.folder, 0) + needed > self.limit:
            return False
        since = time.time() - IN_USE_SECONDS
        for folder in sorted(sizes, key=_used):
            if over > 0 and sizes[folder] and _used(folder) < since:
                LOG.warning("%s is deleted: the store is full, and it was unused the longest", folder)
                for path in folder.glob("*.vectors"):
                    owned.remove_file(path, self.folder.parent)
                owned.remove_empty(folder)
                over -= sizes[folder]
        return over <= 0

    def _sound(self, asked: NDArray[np.uint8]) -> Places:
        """Places (n,) of the keys (n, KEY_BYTES) among the files that are known, their records checked."""
        places = self._index.find(asked)
        files = list(self._files.items())
        step = max(1, AT_ONCE // self.record.itemsize)
        for file, rows, numbers in by_file(places):
            path, part = files[file]
            damaged: list[int] = []
            for start in range(0, len(rows), step):
                some = slice(start, start + step)
                records = part[numbers[some]]
                bad = records["check"] != checksums(records)
                other = (records["key"] != asked[rows[some]]).any(axis=1)  # the index knows half of a key
                places[rows[some][bad | other]] = -1
                damaged += numbers[some][bad].tolist()
            if damaged:
                text = "%s is damaged (%d records, the first is %d): they are computed again"
                LOG.warning(text, path, len(damaged), min(damaged))
        return places

    def _take_in(self, path: Path, seen: int, count: int) -> None:
        """Index the records seen..count of a file."""
        part = np.memmap(path, self.record, mode="r", offset=HEADER_BYTES, shape=(count,))
        keys = np.array(part["key"][seen:])  # (new, KEY_BYTES)
        unwritten = np.flatnonzero(
            ~keys.any(axis=1)
        )  # another process has made the file longer, not yet full
        keys = keys[: unwritten[0]] if len(unwritten) else keys
        self._files[path] = part[: seen + len(keys)]
        file = list(self._files).index(path)
        self._index.add(keys, np.arange(seen, seen + len(keys), dtype=np.int64) | (file << FILE_BITS))

    def _is_readable(self, path: Path) -> bool:
        """Whether a file holds vectors of this store; a warning names one that does not."""
        with path.open("rb") as file:
            header = file.read(HEADER_BYTES)
        if header != self.header:
            reason = "is damaged or of another model" if header.startswith(MAGIC) else "has another format"
            LOG.warning("%s %s and is not read: delete it if you can spare it", path, reason)
        return header == self.header


_NAME = r"[0-9a-f]{16}-.*float(16|32)"  # of a store's folder, of this format or an older one


def _is_store(folder: Path) -> bool:
    """Whether a folder is a store, of any model and format, and holds nothing else."""
    if not re.fullmatch(_NAME, folder.name) or owned.unknown(folder, re.compile(r"[^/]+\.vectors").fullmatch):
        return False
    files = list(folder.glob("*.vectors"))
    return not any(path.is_symlink() for path in files) and all(map(_is_ours, files))


def _is_ours(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(MAGIC))[:-3] in (b"", MAGIC[:-3])  # of any format, or just begun


def _used(folder: Path) -> float:
    """When somebody last opened a store or wrote to it, seconds since 1970."""
    return max(path.stat().st_mtime for path in (folder, *folder.glob("*.vectors")))


class _Index:
    """The place of each key, by the first 8 of its bytes, in sorted arrays: 16 bytes a key, a dict takes 200.

    Keys come in batches, each a sorted run; two neighbouring runs are merged when the older is not twice the
    newer, so that there are O(log n) of them. Of equal keys the one that came last counts.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[NDArray[np.uint64], Places]] = []

    def __len__(self) -> int:
        return sum(len(run) for run, _ in self._runs)

    def find(self, keys: NDArray[np.uint8]) -> Places:
        """The places (n,) of keys (n, KEY_BYTES), -1 where there is none."""
        asked = _heads(keys)
        places = np.full(len(asked), -1, np.int64)
        for run, where in reversed(self._runs):
            at = np.searchsorted(run, asked, side="right") - 1
            hit = (at >= 0) & (run[at] == asked) & (places < 0)
            places[hit] = where[at[hit]]
        return places

    def add(self, keys: NDArray[np.uint8], places: Places) -> None:
        """Take in keys (n, KEY_BYTES) at non-negative places (n,)."""
        if not len(places):
            return
        self._runs.append(_sorted([_heads(keys)], [places]))
        while len(self._runs) > 1 and len(self._runs[-2][0]) < 2 * len(self._runs[-1][0]):
            heads, where = zip(*self._runs[-2:], strict=True)
            self._runs[-2:] = [_sorted(heads, where)]


def _heads(keys: NDArray[np.uint8]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(keys[:, :8]).view(np.uint64).reshape(-1)


def _sorted(
    heads: Iterable[NDArray[np.uint64]], places: Iterable[Places]
) -> tuple[NDArray[np.uint64], Places]:
    joined, where = np.concatenate(list(heads)), np.concatenate(list(places))
    order = np.argsort(joined, kind="stable")
    return joined[order], where[order]
