"""A file of vectors: a header, then records of fixed size (key, checksum, vector), only ever appended.

A writer that dies leaves part of a record at the end, which nobody reads.

Why no library: a store is shared by ranks on several machines and read by forked workers. lmdb must not be
used on a network file system or across a fork; a file that was cut short kills its reader (SIGBUS), a turned
bit comes back as a wrong vector. It was no faster: 60,000 vectors of 9 KB took 0.15 s to read 128 coordinates
of each (here 0.09 s), 0.55 s to write (here 1.7 s). SQLite took 8 s to read and 7 s to write.

Letters: n records, W coordinates of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedtrain.files.atomic import is_disk_full
from embedtrain.types import InputError

KEY_BYTES = 16
HEADER_BYTES = 64
MAGIC = b"ETVEC003"  # the last three digits are the format
AT_ONCE = 2**24  # bytes of records checked or written at a time
_WORD = np.dtype("<u4")

Records = NDArray[np.void]


def record_type(width: int, dtype: np.dtype[Any]) -> np.dtype[np.void]:
    """A record; its vector is padded with zeros to whole words of four bytes."""
    per_word = _WORD.itemsize // dtype.itemsize
    padded = -(-width // per_word) * per_word
    return np.dtype([("key", np.uint8, (KEY_BYTES,)), ("check", _WORD), ("vector", dtype, (padded,))])


def make_header(identity: str, width: int, dtype: np.dtype[Any]) -> bytes:
    """What a file of these vectors starts with."""
    text = MAGIC + identity.encode() + width.to_bytes(4, "little") + dtype.str.encode()
    return text.ljust(HEADER_BYTES, b"\0")


def make_records(keys: Sequence[bytes], vectors: NDArray[np.generic], kind: np.dtype[np.void]) -> Records:
    """The records (n,) of vectors (n, up to W); what they lack is 0."""
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
    words = np.ascontiguousarray(records).view(_WORD).reshape(-1, size)
    sums: NDArray[np.uint64] = np.einsum("ij,j->i", words, factors, dtype=np.uint64)
    return (sums >> 32).astype(np.uint32)


def append(
    path: Path, header: bytes, kind: np.dtype[np.void], keys: Sequence[bytes], vectors: NDArray[np.generic]
) -> None:
    """Add the records of vectors (n, up to W) at the end, in a new file after `header`.

    Raises:
        InputError: if they cannot be written, e.g. for a full disk. The file may then end in part of a
            record: append to another.
    """
    step = max(1, AT_ONCE // kind.itemsize)
    try:
        with path.open("ab") as file:
            if not file.tell():
                file.write(header)
            for start in range(0, len(keys), step):
                some = slice(start, start + step)
                file.write(make_records(keys[some], vectors[some], kind).tobytes())
    except OSError as error:
        reason = "the disk is full" if is_disk_full(error) else str(error.strerror)
        raise InputError(
            f"cannot write vectors to {path}: {reason}. What was written before is safe: make room there, or "
            "give another folder, and run again"
        ) from error
