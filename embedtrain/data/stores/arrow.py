"""Rows that are not held in memory: read and checked once, written to an Arrow file, read from it by number.

    CACHE/<hash of the source and of how it is read>/
        rows.arrow   the rows that can be used; its metadata name the state of the source
        bad.jsonl    the other ones: where, why, and what they hold
        rows.hash    of the rows, whatever file they came from

The file is memory-mapped, so a process holds the rows that it takes and no others. It is Arrow's own format:
`datasets`, pandas and polars open it too.
"""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from embedtrain.data.read.bad_rows import BadRows
from embedtrain.data.read.fields import Ids
from embedtrain.data.read.hub import as_rows, is_hub_name, load
from embedtrain.data.read.ranking import training_files
from embedtrain.data.read.sources import (
    Example,
    Prompts,
    RowForm,
    examples_of,
    nothing_to_use,
    source_rows,
    task_name,
)
from embedtrain.data.stores.fingerprint import Fingerprint
from embedtrain.data.stores.places import Places
from embedtrain.files.atomic import atomic_folder
from embedtrain.files.locks import locked
from embedtrain.files.records import BEGIN, Raw
from embedtrain.files.rows import row_files
from embedtrain.types import InputError

logger = logging.getLogger(__name__)

ROWS, BAD, HASH = "rows.arrow", "bad.jsonl", "rows.hash"
FORMAT = 3  # raise it when rows are read or checked differently, so that old files are made anew
BATCH, BATCH_SIZE = 8192, 1 << 24  # a batch of the file ends at this many rows, or characters of text

Source = str | Path | Sequence[str | Path]


class ArrowRows:
    """A `Store` of the rows of a file, a folder, several of them or a hub dataset.

    The first process that asks reads the source as `read_examples` does and writes the file; others wait. A
    file is made anew when a file of the source has another size or time of change. A hub dataset is fetched
    once. The first row that can be used decides whether all have scores, whatever their tasks.

    Args:
        source: a file, folder, hub name, pattern such as "data/part-*.jsonl.gz", or a list of files.
        cache: folder of the Arrow files.
        split, columns, task, prompts: as in `read_examples`; a list or a pattern needs a `task`.
        rows: most rows read, from the first on; all when None.
        bad_rows: what becomes of rows that cannot be used; the first one is an error when None.

    Raises:
        InputError: as `read_examples`; when a file changes while it is read.
    """

    def __init__(
        self,
        source: Source,
        *,
        cache: str | Path,
        split: str | None = None,
        columns: Mapping[str, str] | None = None,
        task: str | None = None,
        prompts: Mapping[str, str | None] | None = None,
        rows: int | None = None,
        bad_rows: BadRows | None = None,
    ) -> None:
        bad_rows = bad_rows or BadRows()
        self.task = task if task is not None else _task(source)
        form = RowForm(source, task=self.task, columns=columns, prompts=prompts)
        paths = _paths(source)
        given = [sorted((names or {}).items()) for names in (columns, prompts)]
        places = [path if is_hub_name(path) else str(_path(path).resolve()) for path in paths]
        key = (FORMAT, paths, places, split, rows, bad_rows.max_line, self.task, given)
        name = hashlib.blake2b(repr(key).encode(), digest_size=12).hexdigest()
        self._folder = Path(cache) / name
        with locked(Path(cache) / f"{name}.lock"):
            state = _state(paths, split)
            if _stored_state(self._folder) != state:
                raws = chain.from_iterable(_raws(path, split, bad_rows.max_line) for path in paths)
                _write(self._folder, source, state, islice(raws, rows), form, bad_rows)
                if _state(paths, split) != state:
                    raise InputError(
                        f"{source}: was changed while it was read. Leave it as it is, and start again."
                    )
            for raw, error in _bad_rows(self._folder):
                bad_rows.add(raw, error)
            self._open()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def take(self, numbers: Sequence[int]) -> list[Example]:
        """The rows of these numbers, in their order."""
        wanted, places = np.unique(np.asarray(numbers, dtype=np.int64), return_inverse=True)
        batches = np.searchsorted(self._starts, wanted, side="right") - 1
        examples: list[Example] = []
        for batch in np.unique(batches).tolist():
            rows = self._file.get_batch(batch).take(wanted[batches == batch] - self._starts[batch])
            examples += map(_example, *(column.to_pylist() for column in rows.columns))
        return [examples[place] for place in places.tolist()]

    def fingerprint(self) -> str:
        """A hash of all rows, made as they were written."""
        return (self._folder / HASH).read_text("ascii")

    def __getstate__(self) -> dict[str, Any]:
        """The open file stays here."""
        return {"task": self.task, "_folder": self._folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def _open(self) -> None:
        self._file = _opened(self._folder / ROWS)
        sizes = [self._file.get_batch(number).num_rows for number in range(self._file.num_record_batches)]
        self._starts = np.cumsum([0, *sizes])  # rows before each batch, and all of them


def _write(
    folder: Path, source: Source, state: list[Any], raws: Iterable[Raw], form: RowForm, bad_rows: BadRows
) -> None:
    """Read and check all rows, and write the folder when that went well."""
    left_out, begun = 0, time.monotonic()
    logger.info("%s: all rows are read and checked once, into %s", source, folder)
    with atomic_folder(folder, overwrite=True) as fresh:
        with closing(Places(fresh / "ids")) as places, (fresh / BAD).open("w", encoding="utf-8") as bad:

            def refuse(raw: Raw, error: InputError) -> None:
                nonlocal left_out
                bad_rows.add(raw, error)
                left_out += raw.rows
                bad.write(_bad_line(raw, error))

            good = examples_of(raws, form, refuse, ids=Ids(places), one_kind=True)
            found = Fingerprint()
            count = _write_batches(fresh / ROWS, good, state, found)
            (fresh / HASH).write_text(found.hex(), "ascii")
        if not count:
            raise InputError(nothing_to_use(source, left_out))
    seconds = time.monotonic() - begun
    logger.info("%s: %d rows written in %.0f s, %d left out", source, count, seconds, left_out)


def _write_batches(path: Path, rows: Iterator[Example], state: list[Any], found: Fingerprint) -> int:
    """Write an Arrow file, none when there are no rows; gives their number, and their hash to `found`."""
    import pyarrow as pa  # a quarter of a second to import

    first, count = next(rows, None), 0
    if first is None:
        return 0
    content = pa.infer_type([first.query])  # text, or what else the first row has
    types = {
        "query": content, "positives": pa.list_(content), "negatives": pa.list_(content),
        "score": pa.float64(), "task": pa.string(), "where": pa.string(),
        "prompts": pa.list_(pa.string()), "teacher": pa.list_(pa.float64()),
    }  # fmt: skip
    schema = pa.schema([(name, types[name]) for name in Example._fields], {"state": json.dumps(state)})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for batch in _batches(chain([first], rows)):
            columns = zip(zip(*batch, strict=True), schema.types, strict=True)
            arrays = [pa.array(list(values), kind) for values, kind in columns]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
            for row in batch:
                found.add(row)
            count += len(batch)
    return count


def _batches(rows: Iterable[Example]) -> Iterator[list[Example]]:
    batch: list[Example] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += sum(map(len, (row.query, *row.positives, *row.negatives)))
        if len(batch) == BATCH or size >= BATCH_SIZE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _example(*values: Any) -> Example:  # noqa: ANN401  pyarrow has no types
    row = Example(*map(_tuples, values))
    return row._replace(prompts=Prompts(*row.prompts))


def _tuples(value: Any) -> Any:  # noqa: ANN401
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _bad_line(raw: Raw, error: InputError) -> str:
    damage = isinstance(raw.value, InputError)
    value = raw.begin if isinstance(raw.value, InputError) else raw.value
    text = json.dumps(value, default=str).encode() if isinstance(value, dict) else value
    begin = text[: BEGIN + 1].decode("latin-1")  # byte by byte
    return json.dumps([raw.where, raw.number, raw.rows, str(error), damage, begin]) + "\n"


def _bad_rows(folder: Path) -> Iterator[tuple[Raw, InputError]]:
    """What was left out when the rows were written."""
    with (folder / BAD).open(encoding="utf-8") as lines:
        for where, number, rows, reason, damage, text in map(json.loads, lines):
            begin, error = text.encode("latin-1"), InputError(reason)
            yield Raw(where, number, error if damage else begin, begin if damage else b"", rows), error


def _opened(path: Path) -> Any:  # noqa: ANN401
    import pyarrow as pa

    return pa.ipc.open_file(pa.memory_map(str(path)))


def _stored_state(folder: Path) -> Any:  # noqa: ANN401
    """The state of the source that the rows in the folder are of; None when nothing whole is there."""
    import pyarrow as pa

    try:
        (folder / BAD).stat()
        (folder / HASH).stat()
        return json.loads(_opened(folder / ROWS).schema.metadata[b"state"])
    except (OSError, pa.ArrowInvalid, KeyError, TypeError, ValueError):
        return None


def _state(paths: Sequence[str], split: str | None) -> list[list[Any]]:
    """Name, size and time of change of each file that is read; nothing is known of the hub."""
    files: list[Path] = []
    for path in paths:
        if any((_path(path) / name).is_file() for name in ("state.json", "dataset_dict.json")):
            files += sorted(_path(path).rglob("*.arrow"))  # a saved dataset
        elif not is_hub_name(path):
            ranking = training_files(path, split)
            files += chain(*ranking.values()) if ranking else row_files(path, split=split)
    return [[str(file), (now := file.stat()).st_size, now.st_mtime_ns] for file in files]


def _raws(path: str, split: str | None, max_line: int) -> Iterator[Raw]:
    if is_hub_name(path):
        return as_rows(path, load(path, split, streaming=True))
    return source_rows(path, split, max_line)


def _paths(source: Source) -> list[str]:
    """Each file, folder or hub name, patterns resolved."""
    names: list[str] = []
    for one in [source] if isinstance(source, str | Path) else source:
        matches = sorted(glob.glob(str(_path(one)), recursive=True))
        pattern = glob.has_magic(str(one)) and not _path(one).exists()
        if pattern and not matches:
            raise InputError(f"{one}: no file has such a name.")
        names += matches if pattern else [str(one)]
    name, times = max(Counter(names).items(), key=itemgetter(1), default=("", 0))
    if times > 1:
        raise InputError(f"{name}: is named twice. Name every file once.")
    return names


def _path(path: str | Path) -> Path:
    return Path(path).expanduser()


def _task(source: Source) -> str:
    if not isinstance(source, str | Path) or glob.has_magic(str(source)):
        raise InputError(f"{source}: several files need the name of their task. Say it: task: NAME.")
    return task_name(source)
