"""What `data.train` says, read: entries with settings of their own to datasets, one a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from embedtrain.data.order.draw import ALL, Draw
from embedtrain.data.order.mixture import Dataset, Use
from embedtrain.data.read.bad_rows import BadRows
from embedtrain.data.read.fields import Check, text
from embedtrain.data.read.sources import Example, check_all_scored_or_none, read_examples, task_name
from embedtrain.data.stores.arrow import ArrowRows
from embedtrain.data.stores.memory import Capped, MemoryRows, Store
from embedtrain.files.rows import nearest
from embedtrain.types import InputError

Source = str | Mapping[str, Any]
READ_KEYS = ("source", "split", "columns", "task", "prompts")
USE_KEYS = ("weight", "cap", "epochs", "batch_size", "negatives", "draw_negatives", "in_batch")
KEYS = (*READ_KEYS, "stream", "rows", *USE_KEYS)


class Entry(NamedTuple):
    """One dataset as `data.train` names it."""

    read: dict[str, Any]  # what `read_examples` takes
    use: Use
    cap: int | None = None  # most rows used
    stream: bool = False
    rows: int | None = None  # most rows read, from the first on


def entries_of(
    sources: Source | Sequence[Source], columns: Mapping[str, str] | None = None, draw: Draw = ALL
) -> list[Entry]:
    """The entries of one source or of several, checked but not read.

    Args:
        sources: paths or hub names, or mappings with "source" and any of `KEYS`.
        columns: of sources that do not say their own.
        draw: negatives of datasets that do not say theirs.

    Raises:
        InputError: for an unknown key, a value out of range, two sources that would be one task by accident,
            or no source at all.
    """
    listed = [sources] if isinstance(sources, str | Mapping) else list(sources or ())
    if not listed:
        raise InputError("train: the list of datasets is empty. Give a path or a hub name.")
    entries = [_entry(source, columns, draw) for source in listed]
    _check_names(entries)
    return entries


def read_entry(
    entry: Entry, bad_rows: BadRows | None = None, cache: Path | None = None, content: Check = text
) -> Store | list[Example]:
    """What an entry names: its examples, or a store that reads them as they are needed.

    Args:
        entry: what to read.
        bad_rows: what becomes of rows that cannot be used.
        cache: folder of the rows that are not held in memory.
        content: as in `read_examples`; a stream is of texts.

    Raises:
        InputError: as `read_examples` and `ArrowRows`.
    """
    if entry.stream:
        if content is not text:
            raise InputError(f"{entry.read['source']}: only texts can be streamed: leave stream out.")
        if cache is None:
            raise InputError(f"{entry.read['source']}: a stream needs data.cache, a folder for its rows.")
        return ArrowRows(**entry.read, cache=cache, rows=entry.rows, bad_rows=bad_rows)
    return read_examples(**entry.read, bad_rows=bad_rows, content=content)


def read_sources(
    sources: Source | Sequence[Source],
    columns: Mapping[str, str] | None = None,
    bad_rows: BadRows | None = None,
    content: Check = text,
) -> list[Example]:
    """The examples of one source or of several in memory, one after the other, e.g. for validation.

    Raises:
        InputError: as `entries_of` and `read_examples`.
    """
    examples = [
        example
        for entry in entries_of(sources, columns)
        for example in read_examples(**entry.read, bad_rows=bad_rows, content=content)
    ]
    check_all_scored_or_none(examples)
    return examples


def datasets_of(parts: Sequence[tuple[Entry, Store | Sequence[Example]]], seed: int) -> list[Dataset]:
    """Datasets, one a task, in the order in which their tasks come first.

    Rows in memory go by their own task; entries of one task are one dataset, and must be used alike. The
    weight of an entry is shared by its tasks as their rows are.

    Args:
        parts: entries and what was read of them.
        seed: draws the rows that a cap leaves.

    Raises:
        InputError: for settings of one task that differ, scored and unscored rows of one task.
    """
    uses: dict[str, Use] = {}
    rows: dict[str, list[Example]] = {}
    streams: dict[str, Store] = {}
    for entry, read in parts:
        if not isinstance(read, Sequence):
            _add_use(uses, read.task, entry.use, 1.0)
            if read.task in streams:
                raise InputError(f"two streams are the task {read.task!r}: give each its own, task: NAME.")
            streams[read.task] = read if entry.cap is None else Capped(read, entry.cap, seed)
            continue
        used = sample(read, entry.cap, seed)
        own: dict[str, list[Example]] = {}
        for example in used:
            own.setdefault(example.task, []).append(example)
        for task, examples in own.items():
            _add_use(uses, task, entry.use, len(examples) / len(used))
            rows.setdefault(task, []).extend(examples)
    both = streams.keys() & rows.keys()
    if both:
        raise InputError(
            f"the task {min(both)!r} is streamed and in memory: give each its own task, or stream both."
        )
    check_all_scored_or_none(example for examples in rows.values() for example in examples)
    stores = {task: streams[task] if task in streams else MemoryRows(rows[task], task) for task in uses}
    return [Dataset(stores[task], use) for task, use in uses.items()]


def sample(examples: Sequence[Example], limit: int | None, seed: int) -> Sequence[Example]:
    """At most `limit` examples, drawn by the seed, in their order."""
    if limit is None or len(examples) <= limit:
        return examples
    drawn = np.random.default_rng(seed).permutation(len(examples))[:limit]
    return [examples[row] for row in sorted(drawn.tolist())]


def _entry(source: Source, columns: Mapping[str, str] | None, draw: Draw) -> Entry:
    given: dict[str, Any] = dict(source) if isinstance(source, Mapping) else {"source": source}
    for key in given:
        if key not in KEYS:
            raise InputError(
                f"a dataset has no setting {key!r}, only {', '.join(KEYS)}.{nearest(key, list(KEYS))}"
            )
    if "source" not in given:
        raise InputError(f"a dataset needs a source, a path or a hub name; got {given}.")
    where = f"{given['source']}: "
    for key in ("cap", "epochs", "batch_size", "rows"):
        value = given.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise InputError(f"{where}{key} must be a whole number, 1 or more, got {value!r}.")
    for key in ("stream", "in_batch"):
        if not isinstance(given.get(key, False), bool | None):
            raise InputError(f"{where}{key} must be true or false, got {given[key]!r}.")
    stream = bool(given.get("stream"))
    if not isinstance(given["source"], str | Path) and not (stream and given.get("task")):
        raise InputError(f"{where}a list of files needs stream: true and a name, task: NAME.")
    if given.get("rows") is not None and not stream:
        raise InputError(f"{where}rows is how many of a stream are read: add stream: true, or use cap.")
    read = {"columns": columns} | {key: given[key] for key in READ_KEYS if key in given}
    return Entry(read, _use(where, given, draw), given.get("cap"), stream, given.get("rows"))


def _use(where: str, given: Mapping[str, Any], draw: Draw) -> Use:
    weight = given.get("weight")
    if weight is not None and (isinstance(weight, bool) or not isinstance(weight, int | float) or weight < 0):
        raise InputError(f"{where}weight must be a number, 0 or more, got {weight!r}.")
    most, how = given.get("negatives"), given.get("draw_negatives")
    if how == "all" and most is not None:
        raise InputError(f"{where}draw_negatives: all contradicts negatives: {most}. Say one of the two.")
    own = draw._replace(
        most=draw.most if most is None else most,
        how=how if how is not None else ("rotate" if most is not None and draw.how == "all" else draw.how),
    )
    return Use(
        own.checked(where), weight, given.get("epochs"), given.get("batch_size"), given.get("in_batch")
    )


def _check_names(entries: Sequence[Entry]) -> None:
    """Refuse two sources that would be one task by accident."""
    by_name: dict[str, str] = {}
    for entry in entries:
        place = entry.read["source"]
        if entry.read.get("task") is not None:
            continue
        other = by_name.setdefault(task_name(place), str(place))
        if other != str(place):
            raise InputError(
                f"{other} and {place} would both be the task {task_name(place)!r}: give each its own, "
                "{source: ..., task: NAME}."
            )


def _add_use(uses: dict[str, Use], task: str, use: Use, share: float) -> None:
    """Note how a task is used; of several entries the weights add up and all else must be the same."""
    mine = use if use.weight is None else use._replace(weight=use.weight * share)
    before = uses.get(task)
    if before is None:
        uses[task] = mine
        return
    if before._replace(weight=None) != mine._replace(weight=None) or (before.weight is None) != (
        mine.weight is None
    ):
        raise InputError(
            f"two entries of data.train are the task {task!r} and are used differently: give them the same "
            "settings, or each a task of its own."
        )
    if before.weight is not None and mine.weight is not None:
        uses[task] = mine._replace(weight=before.weight + mine.weight)
