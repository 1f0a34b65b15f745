"""Compressed content, as long as it is not out of all proportion to its file."""

from __future__ import annotations

import gzip
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import Any

UNPACKED, RATIO = 256 << 20, 200  # bytes that any file may unpack to; times its size that a larger one may
CHUNK = 1 << 18


def open_unpacked(path: Path) -> BufferedReader:
    """The content of a plain or gzip file. Reading raises OSError where it unpacks to too much."""
    return BufferedReader(_Unpacked(path), CHUNK) if path.name.endswith(".gz") else path.open("rb")


def is_bomb(unpacked: int, packed: int) -> bool:
    """Whether that many bytes are too many to come from so few."""
    return unpacked > UNPACKED and unpacked > RATIO * packed


class _Unpacked(RawIOBase):
    """The content of a gzip file, as long as it is not out of all proportion to the file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("rb")
        self._packed, self._size = gzip.GzipFile(fileobj=self._file), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - any writable buffer
        part = self._packed.read1(len(buffer))
        self._size += len(part)
        if is_bomb(self._size, self._file.tell()):
            raise OSError(
                f"it unpacks to more than {RATIO} times its size; unpack it yourself if that is meant"
            )
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        self._packed.close()
        self._file.close()
        super().close()
