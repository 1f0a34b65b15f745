"""The bytes of a text file: unpacked, in UTF-8, while they are in proportion to the file."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import zlib
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import Any, BinaryIO

UNPACKED, RATIO = 256 << 20, 200  # bytes that any file may unpack to; times its size that a larger one may
CHUNK = 1 << 18
PACKED = (".gz", ".bz2", ".xz", ".zst")
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
CUT = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError)  # a packed file that is damaged


def open_unpacked(path: Path) -> BufferedReader:
    """The content of a plain or packed file, UTF-16 as UTF-8.

    Reading raises OSError where it unpacks to too much, and one of `CUT` or OSError where it is damaged.
    """
    packed = path.name.endswith(PACKED)
    stream: Any = BufferedReader(_Unpacked(path), CHUNK) if packed else path.open("rb")
    if stream.peek(2)[:2] in UTF_16:
        stream = BufferedReader(_Recoded(stream), CHUNK)
    opened: BufferedReader = stream
    return opened


def without_packing(name: str) -> str:
    """The name of a file without .gz and the like."""
    return next((name.removesuffix(suffix) for suffix in PACKED if name.endswith(suffix)), name)


def is_bomb(unpacked: int, packed: int) -> bool:
    """Whether that many bytes are too many to come from so few."""
    return unpacked > UNPACKED and unpacked > RATIO * packed


def _opened(file: BinaryIO, suffix: str) -> Any:  # noqa: ANN401 - what has read1 and close
    if suffix == ".zst":
        import pyarrow as pa  # half a second to import

        return pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")
    if suffix == ".gz":
        return gzip.GzipFile(fileobj=file)
    return bz2.BZ2File(file) if suffix == ".bz2" else lzma.LZMAFile(file)


class _Unpacked(RawIOBase):
    """The content of a packed file, as long as it is not out of all proportion to the file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("rb")
        self._packed, self._size = _opened(self._file, path.suffix), 0

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


class _Recoded(RawIOBase):
    """UTF-16 as UTF-8; what is no character comes out as bytes that are no UTF-8 either."""

    def __init__(self, stream: BufferedReader) -> None:
        super().__init__()
        self._stream, self._decoder = stream, codecs.getincrementaldecoder("utf-16")("surrogatepass")
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - any writable buffer
        while not self._left:
            part = self._stream.read1(CHUNK)
            try:
                text = self._decoder.decode(part, final=not part)
            except UnicodeDecodeError as error:
                raise EOFError("half a character of UTF-16 at the end") from error
            self._left = text.encode("utf-8", "surrogatepass")
            if not part:
                break
        part, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        self._stream.close()
        super().close()
