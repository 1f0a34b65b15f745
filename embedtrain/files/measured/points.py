"""map/<task>.parquet: queries and documents of a retrieval task in two dimensions, for embedding-atlas."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from embedtrain.escaping import file_name
from embedtrain.files.atomic import write_bytes
from embedtrain.files.measured.lines import CURE, value_of
from embedtrain.files.reading import reading
from embedtrain.types import InputError

LARGEST = 1 << 24  # bytes of a file
NAMED = b"embedtrain"  # where a file says of what it is


class About(NamedTuple):
    """Of what a map is."""

    run: str
    step: int
    task: str
    layer: int
    dim: int
    depth: int  # results of a query that are looked at
    documents: int  # of the task; the map has some of them


class Point(NamedTuple):
    """A text of a map; numbers of others are their places in it."""

    kind: str  # query, document
    text: str
    x: float
    y: float
    rank: int | None = None  # of the first relevant document of a query, from 1
    failed: bool | None = None  # whether a query has none among the first `depth`
    near: tuple[int, ...] = ()  # the best documents of a query, the best first
    relevant: tuple[int, ...] = ()  # relevant documents of a query


class Map(NamedTuple):
    """What a file holds."""

    about: About
    points: tuple[Point, ...]


def map_files(folder: Path) -> list[Path]:
    """The maps of a run folder."""
    return sorted(folder.glob("map/*.parquet"))


def write_map(folder: Path, about: About, points: Sequence[Point]) -> Path:
    """The file of a task, in place of one that is there."""
    import pyarrow as pa  # half a second to import
    import pyarrow.parquet as pq

    kinds = {"x": pa.float32(), "y": pa.float32(), "rank": pa.int32(), "failed": pa.bool_()}
    kinds |= {
        "kind": pa.string(),
        "text": pa.string(),
        "near": pa.list_(pa.int32()),
        "relevant": pa.list_(pa.int32()),
    }
    schema = pa.schema([(name, kinds[name]) for name in Point._fields])
    rows = [point._asdict() | {"text": point.text.encode(errors="replace").decode()} for point in points]
    table = pa.Table.from_pylist(rows, schema=schema)
    table = table.replace_schema_metadata({NAMED: json.dumps(about._asdict()).encode()})
    file = io.BytesIO()
    pq.write_table(table, file)
    path = folder / "map" / f"{file_name(about.task)}.parquet"
    write_bytes(path, file.getvalue())
    return path


def read_map(path: Path) -> Map:
    """What a file of `map_files` holds.

    Raises:
        InputError: it is not what `write_map` writes.
    """
    import pyarrow.parquet as pq

    if path.stat().st_size > LARGEST:
        raise InputError(f"{path} has more than {LARGEST:,} bytes. {CURE}")
    with reading(path, CURE), pq.ParquetFile(path) as file:
        if file.metadata.num_rows > 100_000:
            raise InputError(f"{path} has {file.metadata.num_rows:,} rows: no map has. {CURE}")
        about = value_of(json.loads(file.schema_arrow.metadata[NAMED]), About, path.name)
        rows = file.read().to_pylist()
    points = tuple(value_of(row, Point, path.name) for row in rows)
    for point in points:
        if not all(0 <= place < len(points) for place in (*point.near, *point.relevant)):
            raise InputError(f"{path} names a point that it does not have. {CURE}")
    return Map(about, points)
