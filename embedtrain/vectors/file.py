"""A file of vectors: a header, then records of fixed size (key, checksum, vector), only ever appended.

A writer that dies in the middle of a record leaves a tail that is not read; so are records of zeros, which a
file system may leave behind. A record whose checksum is wrong is buried: its key is overwritten, and who asks
for it computes it again.

Letters: n records, W coordinates of a vector.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedtrain.files.atomic import is_disk_full
from embedtrain.types import InputError

KEY_BYTES = 16
HEADER_BYTES = 64
MAGIC = b"ETVEC002"
BURIED = np.full(KEY_BYTES, 255, np.uint8)  # no text has this key
_AT_ONCE = 2**24  # bytes of records checked or written at a time
_WORD = np.dtype("<u4")

Records = NDArray[np.void]


def record_type(width: int, dtype: np.dtype[Any]) -> np.dtype[np.void]:
    """A record; its vector is padded with zeros to whole words of four bytes."""
    per_word = _WORD.itemsize // dtype.itemsize
    padded = -(-width // per_word) * per_word
    return np.dtype([("key", np.uint8, (KEY_BYTES,)), ("check", _WORD), ("vector", dtype, (padded,))])


def make_header(identity: str, width: int, dtype: np.dtype[Any]) -> bytes:
    """What a file of these vectors starts with; ends in a checksum of itself."""
    text = MAGIC + identity.encode() + width.to_bytes(4, "little") + dtype.str.encode()
    text = text.ljust(HEADER_BYTES - _WORD.itemsize, b"\0")
    return text + zlib.crc32(text).to_bytes(_WORD.itemsize, "little")


def whole(header: bytes) -> bool:
    """Whether the header of a file is undamaged, whatever it says."""
    text, check = header[: -_WORD.itemsize], header[-_WORD.itemsize :]
    sized = len(header) == HEADER_BYTES and header.startswith(MAGIC)
    return sized and zlib.crc32(text).to_bytes(_WORD.itemsize, "little") == check


def make_records(keys: Sequence[bytes], vectors: NDArray[np.generic], kind: np.dtype[np.void]) -> Records:
    """The records (n,) of vectors (n, W)."""
    records = np.zeros(len(keys), kind)
    records["key"] = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES)
    records["vector"][:, : vectors.shape[1]] = vectors
    records["check"] = checksums(records)
    return records


def checksums(records: Records) -> NDArray[np.uint32]:
    """What the checks of the records (n,) must be.

    The upper half of the sum, modulo 2^64, of a record's words times the powers of an odd number: a linear
    hash, vectorised where CRC would be a call a record. Damage goes unseen once in 2^32.
    """
    size = records.dtype.itemsize // _WORD.itemsize
    factors = np.cumprod(np.full(size, 0x9E3779B97F4A7C15, np.uint64), dtype=np.uint64)
    factors[KEY_BYTES // _WORD.itemsize] = 0  # the check itself
    found = np.empty(len(records), np.uint32)
    step = max(1, _AT_ONCE // records.dtype.itemsize)
    for start in range(0, len(records), step):
        words = np.ascontiguousarray(records[start : start + step]).view(_WORD).reshape(-1, size)
        found[start : start + step] = (np.einsum("ij,j->i", words, factors, dtype=np.uint64) >> 32).astype(
            np.uint32
        )
    return found


def append(
    path: Path,
    header: bytes,
    kind: np.dtype[np.void],
    keys: Sequence[bytes],
    vectors: NDArray[np.generic],
) -> None:
    """Add the records of vectors (n, W) at the end, in a new file after `header`.

    Raises:
        InputError: if it cannot be written, e.g. for a full disk; the file is then as it was.
    """
    size = path.stat().st_size if path.exists() else 0
    torn = max(0, size - HEADER_BYTES) % kind.itemsize  # of a write that failed and could not be undone
    step = max(1, _AT_ONCE // kind.itemsize)
    try:
        with path.open("ab") as file:
            if torn:
                file.truncate(size - torn)
            if not size:
                file.write(header)
            for start in range(0, len(keys), step):
                block = make_records(keys[start : start + step], vectors[start : start + step], kind)
                file.write(block.tobytes())
    except OSError as error:
        if path.exists():  # half a record would shift all that follow
            with path.open("r+b") as file:
                file.truncate(size)
        full = "the disk is full" if is_disk_full(error) else str(error.strerror)
        raise InputError(
            f"cannot write vectors to {path}: {full}. What was written before is kept: make room there, or "
            "give another folder, and run again"
        ) from error


def bury(path: Path, kind: np.dtype[np.void], numbers: NDArray[np.int64]) -> bool:
    """Overwrite the keys of damaged records, so that nobody finds them again; False where it cannot."""
    try:
        with path.open("r+b") as file:
            for number in numbers.tolist():
                file.seek(HEADER_BYTES + number * kind.itemsize)
                file.write(BURIED.tobytes())
    except OSError:
        return False
    return True
