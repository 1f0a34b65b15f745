"""The rows of a parquet file, in batches whose memory is bounded before they are unpacked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from embedtrain.files.records import Raw
from embedtrain.files.unpacked import is_bomb
from embedtrain.types import InputError

BATCH, BATCH_BYTES = 1024, 256 << 20  # a batch ends at this many rows, or bytes if all were the longest value
I32 = 5  # of Thrift's compact protocol


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
    """Rows of a batch, such that a value of a dictionary repeated in all of them stays within bounds.

    Raises:
        ValueError: if the pages are out of all proportion to the file.
    """
    packed = unpacked = repeated = 0
    with path.open("rb") as file:
        for number in range(group.num_columns):
            column = group.column(number)
            packed += column.total_compressed_size
            unpacked += max(column.total_uncompressed_size, 8 * column.num_values)
            for offset in {column.dictionary_page_offset or column.data_page_offset, column.data_page_offset}:
                page = _page_size(file, offset)
                if is_bomb(page, path.stat().st_size):
                    unpacked = max(unpacked, page)
                if column.has_dictionary_page and offset != column.data_page_offset:
                    repeated += page
    if is_bomb(unpacked, packed):
        raise ValueError(_bomb(packed, unpacked))
    return max(1, min(BATCH, BATCH_BYTES // max(repeated, 1)))


def _bomb(packed: int, unpacked: int) -> str:
    return f"{packed:,} bytes unpack to {unpacked:,} or more"


def _page_size(file: BinaryIO, offset: int) -> int:
    """Bytes of an unpacked page: the second of the three numbers that its header begins with."""
    file.seek(offset)
    header = iter(file.read(32))
    numbers: list[int] = []
    for field in header:
        if field != (1 << 4 | I32) or len(numbers) == 2:
            break
        value, shift = 0, 0
        for byte in header:
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        numbers.append((value >> 1) ^ -(value & 1))
    return numbers[1] if len(numbers) > 1 else 0
