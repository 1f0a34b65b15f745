"""Rows of a dataset that is larger than memory: sharded files or a hub stream.

An epoch goes through segments, the parts of shards that can be opened directly: 10,000 lines of a .jsonl
file, row groups of a .parquet file, the whole of a packed file or a hub part. Segments come in a permuted
order and are read from front to end, several at once in turn, so that neighbours are of different segments
and reading is still sequential. Nothing is kept a row: 24 bytes a segment.
"""

from __future__ import annotations

import heapq
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedtrain.data.permutation import Permutation
from embedtrain.data.read.bad_rows import BadRows
from embedtrain.data.read.ids import id_of, same_id
from embedtrain.data.read.sources import Example, Kinds, RowForm, nothing_to_use, task_name
from embedtrain.data.stores.counting import repeated
from embedtrain.data.stores.memory import Order
from embedtrain.data.stores.shards import FileShard, Shard, open_shards
from embedtrain.files.records import Raw, parsed
from embedtrain.types import InputError


class StreamedRows:
    """A `Store` of rows that are read when they are taken.

    Rows are numbered in the order of the shards. What `read_examples` checks is checked as a row is taken;
    ids of files are compared when the store is made. The first row that can be used decides whether all
    have scores, whatever their tasks.

    Args:
        source: a folder, file, pattern or list of files, or a hub name (see `open_shards`).
        cache: folder that keeps what counting the files found, so that the next start takes no time.
        split, columns, task, prompts: as in `read_examples`; a list or a pattern needs a `task`.
        rows: of a hub dataset that does not say it.
        bad_rows: what becomes of rows that cannot be used; the first one is an error when None.
        interleave: segments read at once, 1 or more; of few segments, half of them.

    Raises:
        InputError: for files that are not there or cannot be streamed; when no row can be used.
    """

    def __init__(
        self,
        source: str | Path | Sequence[str | Path],
        *,
        cache: str | Path,
        split: str | None = None,
        columns: Mapping[str, str] | None = None,
        task: str | None = None,
        prompts: Mapping[str, str | None] | None = None,
        rows: int | None = None,
        bad_rows: BadRows | None = None,
        interleave: int = 4,
    ) -> None:
        if interleave < 1:
            raise InputError(f"interleave must be 1 or more, got {interleave}.")
        self._bad_rows = bad_rows or BadRows()
        self.task = task if task is not None else _task(source)
        self._form = RowForm(source, task=self.task, columns=columns, prompts=prompts)
        self._shards = open_shards(
            source, cache=Path(cache), split=split, rows=rows, max_line=self._bad_rows.max_line
        )
        self._segments = Segments(self._shards)
        self._interleave = interleave
        self._cursors: OrderedDict[int, Cursor] = OrderedDict()
        self._process = os.getpid()
        self._kinds = Kinds()
        self._repeated = self._repeated_ids()
        self._find_first(source)

    def __len__(self) -> int:
        return self._segments.rows

    def order(self, seed: int, epoch: int) -> Order:
        """Segments permuted, `interleave` of them in turn, each from front to end."""
        return InTurn(self._segments.first, self._segments.sizes, self._interleave, (seed, epoch))

    def take(self, numbers: Sequence[int]) -> dict[int, Example]:
        """Row number -> its example, in ascending order; a bad row that the policy lets pass is not there.

        Rows that follow those taken last are read on; any others cost a new start at their segment's
        beginning. So take the rows of a whole window at once.

        Raises:
            InputError: for a bad row under the policy that stops at it; for a file that was changed.
        """
        found: dict[int, Example] = {}
        for number, raw in self._raws(np.unique(np.asarray(numbers, dtype=np.int64))):
            try:
                row = parsed(raw)
                if number in self._repeated:
                    raise same_id(raw.where, id_of(row) or "", self._repeated[number])
                example = self._form.example(raw.where, row)
                self._kinds.check(self.task, example)
            except InputError as error:
                self._bad_rows.add(raw, error)
            else:
                found[number] = example
        return found

    def __getstate__(self) -> dict[str, Any]:
        """Open files stay here."""
        return {**self.__dict__, "_cursors": OrderedDict()}

    def _raws(self, numbers: NDArray[np.int64]) -> Iterator[tuple[int, Raw]]:
        """(number, what stands there) of ascending row numbers."""
        if self._process != os.getpid():  # a forked worker shares the place in open files with its parent
            self._cursors, self._process = OrderedDict(), os.getpid()
        at = self._segments.of(numbers)
        cuts = np.flatnonzero(np.diff(at)) + 1
        for mine in np.split(numbers, cuts) if len(numbers) else ():
            segment = int(self._segments.of(mine[:1])[0])
            shard = self._shards[self._segments.shard[segment]]
            before = int(self._segments.before[self._segments.shard[segment]])
            if (error := shard.missing()) is not None:
                gone = Raw(f"{shard.name}: all rows", 1, error, rows=shard.rows)
                yield from ((number, gone) for number in mine.tolist())
                continue
            for number in mine.tolist():
                yield number, self._cursor(segment, shard, number - before).at(number - before)

    def _cursor(self, segment: int, shard: Shard, row: int) -> Cursor:
        """The open one of a segment, or a new one when it is past the row."""
        cursor = self._cursors.pop(segment, None)
        if cursor is None or not cursor.reaches(row):
            cursor = Cursor(shard, row)
        self._cursors[segment] = cursor
        while len(self._cursors) > 2 * self._interleave:
            self._cursors.popitem(last=False)
        return cursor

    def _repeated_ids(self) -> dict[int, str]:
        """Row number -> the place of the first row with its id.

        Raises:
            InputError: for the first such row under the policy that stops at it.
        """
        files = [shard for shard in self._shards if isinstance(shard, FileShard)]
        found: dict[int, str] = {}
        for (late, row), (early, number) in sorted(repeated([file.counted.ids for file in files]).items()):
            found[int(self._segments.before[late]) + row] = files[early].where(number)
            if self._bad_rows.policy == "error":
                raw = next(files[late].read(row))[1]
                raise same_id(raw.where, id_of(parsed(raw)) or "", files[early].where(number))
        return found

    def _find_first(self, source: object) -> None:
        """Read on to the first row that can be used: it decides whether rows have scores."""
        if not any(self.take([number]) for number in range(len(self))):
            raise InputError(nothing_to_use(source, len(self)))


class Segments:
    """Where the segments of all shards begin.

    Args:
        shards: in their order.
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        rows = np.array([shard.rows for shard in shards], dtype=np.int64)
        self.rows = int(rows.sum())
        self.before = np.cumsum(rows) - rows  # (shards,) rows of those before
        starts = [before + shard.starts for before, shard in zip(self.before, shards, strict=True)]
        self.first = np.concatenate([*starts, np.zeros(0, dtype=np.int64)])  # (segments,)
        self.sizes = np.diff(self.first, append=self.rows)
        self.shard = np.repeat(np.arange(len(shards)), [len(shard.starts) for shard in shards])

    def of(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The segment of each row number."""
        return np.searchsorted(self.first, numbers, side="right").astype(np.int64) - 1


class Cursor:
    """A shard that is open at a row and reads on.

    Args:
        shard: it.
        row: the first to be read.
    """

    def __init__(self, shard: Shard, row: int) -> None:
        self._shard, self._raws = shard, shard.read(row)
        self._last: Raw | None = None
        self._begin = self._end = row  # rows of `_last`

    def reaches(self, row: int) -> bool:
        """Whether the row is not past."""
        return row >= self._begin

    def at(self, row: int) -> Raw:
        """What stands there; damage when the shard ends before it."""
        while self._last is None or self._end <= row:
            self._begin, self._last = next(self._raws, (self._end, None))
            if self._last is None:
                return self._short()
            self._end = self._begin + self._last.rows
        return self._last

    def _short(self) -> Raw:
        name, rows = self._shard.name, self._shard.rows
        error = InputError(f"{name}: ends after row {self._end}, and was to have {rows} rows.")
        self._raws = iter(())
        return Raw(f"{name}: rows {self._end + 1}-{rows}", self._end + 1, error, rows=rows - self._end)


class InTurn:
    """Positions of an epoch -> row numbers.

    The permuted segments are dealt to lanes, each to the shortest so far, and positions take one row of each
    lane in turn; a lane that ends is left out from then on.

    Args:
        first: (segments,) number of the first row of each segment.
        sizes: (segments,) rows of each.
        lanes: how many; half of the segments where these are few, so that other ones meet in every epoch.
        key: of the permutation.
    """

    def __init__(
        self, first: NDArray[np.int64], sizes: NDArray[np.int64], lanes: int, key: tuple[int, ...]
    ) -> None:
        lanes = min(lanes, (len(first) + 1) // 2)
        order = Permutation(len(first), key)(np.arange(len(first)))
        dealt: list[list[int]] = [[] for _ in range(lanes)]
        shortest = [(0, lane) for lane in range(lanes)]
        for segment, size in zip(order.tolist(), sizes[order].tolist(), strict=True):
            length, lane = shortest[0]
            dealt[lane].append(segment)
            heapq.heapreplace(shortest, (length + size, lane))
        length_of = {lane: length for length, lane in shortest}
        self._lanes = []  # longest first: (row of the lane where each segment ends, number minus that row)
        for lane in sorted(range(lanes), key=lambda lane: (-length_of[lane], lane)):
            mine = np.array(dealt[lane], dtype=np.int64)
            ends = np.cumsum(sizes[mine])
            self._lanes.append((ends, first[mine] - ends + sizes[mine]))
        lengths = np.array([int(ends[-1]) for ends, _ in self._lanes][::-1])  # ascending
        self._begin = np.concatenate([[0], lengths[:-1]])  # row of the lanes at which each phase begins
        self._active = np.arange(lanes, 0, -1)  # lanes that have rows left in it
        self._after = np.cumsum((lengths - self._begin) * self._active)
        self._until = self._after - (lengths - self._begin) * self._active

    def __call__(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row numbers of the same shape."""
        positions = np.asarray(positions, dtype=np.int64)
        phase = np.searchsorted(self._after, positions, side="right")
        turn, lane = np.divmod(positions - self._until[phase], self._active[phase])
        turn += self._begin[phase]
        found = np.empty_like(positions)
        for number, (ends, shift) in enumerate(self._lanes):
            mine = lane == number
            rows = turn[mine]
            found[mine] = rows + shift[np.searchsorted(ends, rows, side="right")]
        return found


def _task(source: str | Path | Sequence[str | Path]) -> str:
    if not isinstance(source, str | Path) or any(sign in str(source) for sign in "*?["):
        raise InputError(f"{source}: several files need the name of their task. Say it: task: NAME.")
    return task_name(source)
