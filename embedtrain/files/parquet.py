"""The rows of a parquet file, in batches whose memory is bounded before they are unpacked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from embedtrain.files.records import Raw
from embedtrain.files.unpacked import is_bomb
from embedtrain.types import InputError

BATCH, BATCH_BYTES = 1024, 256 << 20  # a batch ends at this many rows, or bytes if all were the longest value
BOOLS, BYTE, NUMBERS, DOUBLE, BINARY, LISTS, MAP, STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, (9, 10), 11, 12
LARGEST = 16 << 20  # bytes of a header, as Arrow reads it
DEPTH = 8
DICTIONARY, DELTA_BYTES = 2, 7  # a type of page; an encoding whose values share what they begin with
AT_ONCE = 1 << 30  # bytes of pages that are in memory together: two of each column


def parquet_rows(path: Path) -> Iterator[Raw]:
    """The rows of a parquet file; damage takes the place of the rest of its row group."""
    import pyarrow as pa  # half a second to import
    import pyarrow.parquet as pq

    wrong = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError)
    number, packed, unpacked = 0, path.stat().st_size, 0
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for group in range(file.num_row_groups):
                end = number + file.metadata.row_group(group).num_rows
                try:
                    size = _batch_size(path, file.metadata.row_group(group))
                    for part in file.iter_batches(size, row_groups=[group]):
                        unpacked += part.nbytes
                        if is_bomb(unpacked, packed):
                            raise ValueError(_bomb(packed, unpacked))
                        for value in _values(part):
                            number += 1
                            yield _parquet_row(path, number, value)
                    if number < end:
                        raise ValueError(f"{end - number:,} of the rows that it counts are missing")
                except wrong as error:
                    yield _parquet_row(path, number + 1, error, rows=max(1, end - number))
                number = end
    except wrong as error:
        yield _parquet_row(path, number + 1, error)


def _values(part: Any) -> Iterator[dict[str, Any] | Exception]:  # noqa: ANN401  pyarrow has no types
    """The rows of a batch; where it cannot be taken as a whole (text that is not UTF-8), one by one."""
    try:
        yield from part.to_pylist()
        return
    except (ValueError, OverflowError) as error:
        first = error
    for row in range(part.num_rows):
        try:
            yield part.slice(row, 1).to_pylist()[0]
        except (ValueError, OverflowError) as error:
            yield error if part.num_rows > 1 else first


def _parquet_row(path: Path, number: int, value: dict[str, Any] | Exception, rows: int = 1) -> Raw:
    if isinstance(value, Exception):
        reason = str(value).partition("\n")[0]
        value = InputError(
            f"{path}: not a readable parquet file after row {number - 1} ({reason}). Copy or download it "
            "again."
        )
    place = f"row {number}" if rows == 1 else f"rows {number}-{number + rows - 1}"
    return Raw(f"{path}: {place}", number, value, rows=rows)


def _batch_size(path: Path, group: Any) -> int:  # noqa: ANN401
    """Rows of a batch, such that a value that many rows share stays within bounds when all of them have it.

    Raises:
        ValueError: if the pages are out of all proportion to the file.
    """
    size = path.stat().st_size
    packed = unpacked = at_once = repeated = 0
    with path.open("rb") as file:
        for number in range(group.num_columns):
            column = group.column(number)
            start = min(column.dictionary_page_offset or column.data_page_offset, column.data_page_offset)
            found = list(_pages(file, start, min(start + column.total_compressed_size, size)))
            values = max(column.num_values, sum(page.values for page in found))
            packed += column.total_compressed_size
            unpacked += max(column.total_uncompressed_size, sum(page.unpacked for page in found), 8 * values)
            at_once += sum(sorted(page.unpacked for page in found)[-2:])  # a dictionary and what uses it
            repeated += max((page.unpacked for page in found if page.repeats), default=0)
    if is_bomb(unpacked, min(packed, size)):
        raise ValueError(_bomb(min(packed, size), unpacked))
    if at_once > AT_ONCE:
        raise ValueError(f"its pages unpack to {at_once:,} bytes at once: write smaller ones")
    return max(1, min(BATCH, BATCH_BYTES // max(repeated, 1)))


def _bomb(packed: int, unpacked: int) -> str:
    return f"{packed:,} bytes unpack to {unpacked:,} or more"


class _Page(NamedTuple):
    """What the header of a page says."""

    unpacked: int  # bytes
    values: int
    repeats: bool  # whether one value in it may stand for many


def _pages(file: BinaryIO, start: int, end: int) -> Iterator[_Page]:
    """The pages between two places of a file, up to the first that cannot be read: no reader gets further.

    The footer binds nobody: a reader makes room for what the header of each page says. The format is
    apache/parquet-format, in Thrift's compact protocol.
    """
    while start < end:
        file.seek(start)
        try:
            header = _Thrift(file).struct()
            unpacked, packed = _number(header, 2), _number(header, 3)
        except ValueError:
            return
        kinds = [header[kind] for kind in (5, 7, 8) if isinstance(header.get(kind), dict)]
        data: dict[int, Any] = kinds[0] if kinds else {}
        encoding = data.get(4 if 8 in header else 2)
        repeats = header.get(1) == DICTIONARY or encoding == DELTA_BYTES
        yield _Page(unpacked, _number(data, 1), repeats)
        start = file.tell() + packed


def _number(fields: dict[int, Any], name: int) -> int:
    value = fields.get(name, 0)
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"field {name} is {value!r}")
    return value


class _Thrift:
    """Reads one struct at the place of a file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._end = file, file.tell() + LARGEST

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """The whole numbers and structs among its fields, by their numbers. Raises ValueError."""
        fields: dict[int, Any] = {}
        number = 0
        while kind := self._byte():
            number = number + (kind >> 4) if kind >> 4 else self._signed()
            fields[number] = self._value(kind & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:  # noqa: ANN401 - a number, a struct, or None for the rest
        if depth > DEPTH:
            raise ValueError("nested too deeply")
        if kind in NUMBERS:
            return self._signed()
        if kind == STRUCT:
            return self.struct(depth + 1)
        if kind in LISTS:
            head = self._byte()
            for _ in range(head >> 4 if head >> 4 < 15 else self._unsigned()):
                self._element(head & 15, depth)
        elif kind == MAP:
            if count := self._unsigned():
                kinds = self._byte()
                for _ in range(count):
                    self._element(kinds >> 4, depth)
                    self._element(kinds & 15, depth)
        elif kind not in BOOLS:
            self._skip({BYTE: 1, DOUBLE: 8}.get(kind) or self._length(kind))
        return None

    def _element(self, kind: int, depth: int) -> None:
        if kind in BOOLS:
            self._byte()
        else:
            self._value(kind, depth + 1)

    def _length(self, kind: int) -> int:
        if kind != BINARY:
            raise ValueError(f"no type {kind}")
        return self._unsigned()

    def _skip(self, size: int) -> None:
        self._file.seek(size, 1)
        self._check()

    def _byte(self) -> int:
        self._check()
        if not (byte := self._file.read(1)):
            raise ValueError("the file ends")
        return byte[0]

    def _check(self) -> None:
        if self._file.tell() > self._end:
            raise ValueError("the header is too long")

    def _unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
            if shift > 63:
                raise ValueError("a number is too long")

    def _signed(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)
