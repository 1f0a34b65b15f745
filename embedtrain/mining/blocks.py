"""Arrays on disk that are whole or absent: written beside, flushed, renamed; checked when they are read.

A block is a header (magic, key, checksum) and the array. Its key names whatever decides its content, so a
block that was written for something else is never taken for this one.
"""

from __future__ import annotations

import hashlib
import time
import uuid
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedtrain.files.atomic import UNFINISHED, atomic_file, is_disk_full
from embedtrain.types import InputError

MAGIC = b"ETBLOCK1"
HEADER_BYTES = 64
ABANDONED_SECONDS = 3_600.0


class DamagedError(Exception):
    """A block is there and does not hold what was written."""


def block_key(*parts: object) -> bytes:
    """32 bytes that are equal just where all parts are."""
    digest = hashlib.sha256()
    for part in parts:
        text = str(part).encode("utf-8", "surrogatepass")
        digest.update(len(text).to_bytes(8, "little") + text)
    return digest.digest()


def write_block(path: Path, key: bytes, array: NDArray[np.generic]) -> None:
    """Put the array at `path`, whole; another process that writes the same block does no harm.

    Raises:
        InputError: when the disk is full or the place cannot be written.
    """
    content = np.ascontiguousarray(array).tobytes()
    header = (MAGIC + key + zlib.crc32(content).to_bytes(4, "little")).ljust(HEADER_BYTES, b"\0")
    write_whole(path, header + content)


def write_whole(path: Path, content: bytes) -> None:
    """A file with that content at `path`, which appears at once. Raises InputError as `write_block`."""
    try:
        with atomic_file(path, mark=f".{uuid.uuid4().hex}") as file:
            file.write(content)
    except OSError as error:
        full = "the disk is full" if is_disk_full(error) else str(error.strerror)
        raise InputError(f"cannot write {path}: {full}. Free some space, or choose another folder") from error


def read_block(
    path: Path, key: bytes, shape: tuple[int, ...], dtype: np.dtype[np.generic]
) -> NDArray[np.generic] | None:
    """The array of a block, which holds at least one number; None where there is none.

    Raises:
        DamagedError: if the file is of another size, another key, or does not match its checksum.
    """
    try:
        with path.open("rb") as file:
            header = file.read(HEADER_BYTES)
    except FileNotFoundError:
        return None
    size = HEADER_BYTES + int(np.prod(shape)) * dtype.itemsize
    if path.stat().st_size != size or header[: len(MAGIC) + len(key)] != MAGIC + key:
        raise DamagedError(path)
    found = mapped(path, shape, dtype)
    check = header[len(MAGIC) + len(key) :][:4]
    if zlib.crc32(found.data) != int.from_bytes(check, "little"):
        raise DamagedError(path)
    return found


def mapped(path: Path, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    """The array of a block that was read before and found whole, as a read-only memory map."""
    return np.memmap(path, dtype, mode="r", offset=HEADER_BYTES, shape=shape)


def sweep_abandoned(folder: Path) -> None:
    """Delete what killed processes left half-written in a folder: files of an hour ago and older."""
    for path in folder.glob(f".*{UNFINISHED}"):
        try:
            if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                path.unlink()
        except FileNotFoundError:  # another process was faster
            continue
