"""The parts of a dataset that is larger than memory, each readable from some of its rows on."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from embedtrain.data.read.hub import as_rows, is_hub_name, load
from embedtrain.data.stores.counting import MARK, Counted, counted, stamp
from embedtrain.files.records import Raw, line_row, lines, parquet_rows
from embedtrain.files.rows import SUFFIXES, row_files
from embedtrain.types import InputError

STREAMED = tuple(suffix for suffix in SUFFIXES if ".json." not in f"{suffix}.")


class Shard(Protocol):
    """Rows 0..rows-1 of one file or of one part of a hub dataset."""

    name: str
    rows: int
    starts: NDArray[np.int64]  # rows at which reading can begin at once, ascending, the first is 0

    def read(self, row: int) -> Iterator[tuple[int, Raw]]:
        """(row, what stands there) from a row on; damage that covers it may begin before it."""
        ...

    def where(self, number: int) -> str:
        """The place of a row, by the number that its `Raw` has."""
        ...

    def missing(self) -> InputError | None:
        """Why nothing can be read any more, if so.

        Raises:
            InputError: when it is not what it was when it was counted.
        """
        ...


class FileShard:
    """A .jsonl, .ndjson or .parquet file, or one packed with gzip.

    A packed file can be read from its beginning only.

    Args:
        path: the file.
        cache: folder that keeps what counting it found.
        max_line: most bytes of a line.

    Raises:
        InputError: when it is not there.
    """

    def __init__(self, path: Path, *, cache: Path, max_line: int) -> None:
        self.name = str(path)
        self._path, self._max_line = path, max_line
        self._parquet = path.name.endswith(".parquet")
        try:
            self._stamp = stamp(path)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
        self.counted: Counted = counted(path, self._stamp, cache, max_line=max_line)
        self.rows = self.counted.rows
        marks = self.counted.marks[:1] if path.name.endswith(".gz") else self.counted.marks
        self._marks = marks if self.rows else marks[:0]
        every = np.arange(len(self._marks), dtype=np.int64)
        self.starts = self._marks[:, 0].copy() if self._parquet else every * MARK

    def read(self, row: int) -> Iterator[tuple[int, Raw]]:
        """From the last place before the row where reading can begin."""
        mark = int(np.searchsorted(self.starts, row, side="right")) - 1
        first, (before, at) = int(self.starts[mark]), self._marks[mark].tolist()
        if self._parquet:
            for raw in parquet_rows(self._path, group=at):
                if raw.number - 1 + raw.rows > row:
                    yield raw.number - 1, raw
            return
        found = lines(self._path, max_line=self._max_line, number=before, start=at)
        for number, line in enumerate(islice(found, row - first, None), row):
            yield number, line_row(self._path, line)

    def where(self, number: int) -> str:
        """As `Raw.where`."""
        return f"{self.name}: row {number}" if self._parquet else f"{self.name}:{number}"

    def missing(self) -> InputError | None:
        """An error when the file is gone."""
        try:
            now = stamp(self._path)
        except OSError as error:
            return InputError(f"{self.name}: was there when the run began and is gone ({error.strerror}).")
        if now != self._stamp:
            raise InputError(
                f"{self.name}: was changed while the run was reading it. Leave the files of a running run "
                "as they are, and start it again."
            )
        return None


class HubShard:
    """A part of a hub dataset that is streamed: it begins at its first row only.

    Args:
        name: for messages.
        rows: how many it has.
        stream: of the library `datasets`.
    """

    def __init__(self, name: str, rows: int, stream: Any) -> None:  # noqa: ANN401  it has no types
        self.name, self.rows, self._stream = name, rows, stream
        self.starts = np.zeros(min(1, rows), dtype=np.int64)

    def read(self, row: int) -> Iterator[tuple[int, Raw]]:
        """The library passes over the rows before it."""
        return enumerate(as_rows(self.name, self._stream.skip(row) if row else self._stream, row), row)

    def where(self, number: int) -> str:
        """As `Raw.where`."""
        return f"{self.name}: row {number}"

    def missing(self) -> InputError | None:
        """Nothing is known of a hub."""
        return None


def open_shards(
    source: str | Path | Sequence[str | Path],
    *,
    cache: Path,
    split: str | None = None,
    rows: int | None = None,
    max_line: int,
) -> list[Shard]:
    """The shards of a source in their order.

    Args:
        source: a folder, a file, a pattern such as "data/part-*.jsonl.gz", a list of these, or a hub name.
        cache: folder that keeps what counting the files found.
        split: part of a folder or hub dataset.
        rows: of a hub dataset that does not say it; else the first so many are used.
        max_line: most bytes of a line.

    Raises:
        InputError: for files that are not there or cannot be streamed, a hub dataset of unknown length.
    """
    if isinstance(source, str | Path) and is_hub_name(source) and not glob.has_magic(str(source)):
        return _hub_shards(str(source), split, rows)
    if rows is not None:
        raise InputError(f"{source}: rows is for hub datasets only; files are counted.")
    listed = [source] if isinstance(source, str | Path) else source
    files = [file for one in listed for file in _files(one, split)]
    for file in files:
        if not file.name.endswith(STREAMED):
            raise InputError(
                f"{file}: cannot be streamed: its name must end in {', '.join(STREAMED)}. One object a line "
                "in a .jsonl file can."
            )
        if files.count(file) > 1:
            raise InputError(f"{file}: is named twice. Name every file once.")
    return [FileShard(file, cache=cache, max_line=max_line) for file in files]


def _files(source: str | Path, split: str | None) -> list[Path]:
    path = Path(source).expanduser()
    if path.exists() or not glob.has_magic(str(path)):
        if any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
            raise InputError(f"{path}: a saved dataset cannot be streamed. Write it with to_parquet.")
        return row_files(path, split=split)
    found = sorted(Path(name) for name in glob.glob(str(path), recursive=True))
    if not found:
        raise InputError(f"{path}: no file has such a name.")
    return found


def _hub_shards(name: str, split: str | None, rows: int | None) -> list[Shard]:
    """The hub's own parts where it says how long each is, else one of all rows."""
    stream = load(name, split, streaming=True)
    said = (stream.info.splits or {}).get(split or "train")
    total = rows if rows is not None else getattr(said, "num_examples", None)
    if not total or total < 1:
        raise InputError(f"{name}: the hub does not say how many rows it has. Say it: rows: NUMBER.")
    lengths = list(getattr(said, "shard_lengths", None) or ())
    if rows is None and len(lengths) == stream.num_shards > 1 and sum(lengths) == total:
        return [
            HubShard(f"{name} part {n + 1}", length, stream.shard(num_shards=len(lengths), index=n))
            for n, length in enumerate(lengths)
        ]
    return [HubShard(name, total, stream)]
