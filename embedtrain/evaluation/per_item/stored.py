"""What a score is made of, kept beside it: a number per query, pair, example or experiment.

`<folder>/items/<task>/<cell>.npz` holds those of one cell and split. Two runs are compared item by item, so
each item bears a hash of its text (of a query, its id), and the file says of which weights and data it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedtrain.escaping import plain_name
from embedtrain.evaluation.per_item.weighted import Floats, Sample
from embedtrain.files.atomic import atomic_file
from embedtrain.files.reading import reading
from embedtrain.types import InputError


class About(NamedTuple):
    """Of what the items are."""

    run: str
    step: int
    task: str
    split: str
    layer: int
    dim: int
    dtype: str
    weights: str  # hash of the weights
    data: str  # revision of the data set
    mteb: str  # its version
    subsets: tuple[str, ...]  # languages of the task: the parts of a sample
    statistics: Mapping[str, str]  # metric -> how the items make it, the main one first; empty: none are kept


class ItemValues(NamedTuple):
    """The items of one cell and split, in the order of the data."""

    about: About
    ids: NDArray[np.int64]  # (n,) hash of what was asked
    part: NDArray[np.int64]  # (n,) position in `about.subsets`
    gold: Floats  # (n,) what the values are held against; zeros where there is no such thing
    values: Mapping[str, Floats]  # metric -> (n, k); of k alternatives the best statistic counts

    def sample(self, metric: str | None = None) -> Sample:
        """What statistics are computed of; None is the main metric.

        Raises:
            InputError: the metric is not kept by item.
        """
        kept = self.about.statistics
        if not kept:
            raise InputError(f"{self.about.task}: tasks of this type keep no items")
        name = next(iter(kept)) if metric is None else metric
        if name not in kept:
            raise InputError(f"{self.about.task}: {name} is not kept by item; there are {', '.join(kept)}")
        return Sample(kept[name], self.values[name], self.gold, self.part)


def items_file(folder: Path, task: str, *, step: int, cell: str, split: str) -> Path:
    """Where the items of a cell lie; `cell` is its name, as L6_D384."""
    return folder / "items" / task / f"step{step}_{plain_name(cell)}_{split}.npz"


def write_items(path: Path, items: ItemValues) -> None:
    """The file, whole or not at all; numbers that fit are kept in 4 bytes."""
    arrays: dict[str, NDArray[Any]] = {
        "about": np.array(json.dumps(items.about._asdict())),
        "ids": items.ids,
        "part": items.part.astype(np.int16),
        "gold": _short(items.gold),
    }
    for number, metric in enumerate(items.about.statistics):
        arrays[f"values{number}"] = _short(items.values[metric])
    with atomic_file(path) as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_items(path: Path) -> ItemValues:
    """The items of a file.

    Raises:
        InputError: there is none, or it is damaged.
    """
    if not path.exists():
        raise InputError(
            f"{path}: no items are kept of this cell; evaluate it again with the same folder "
            "(its scores are then computed anew)"
        )
    with reading(path, "Remove it and evaluate again"), np.load(path, allow_pickle=False) as arrays:
        row = json.loads(str(arrays["about"]))
        about = About(**{**row, "subsets": tuple(row["subsets"])})
        values = {
            metric: arrays[f"values{number}"].astype(np.float64)
            for number, metric in enumerate(about.statistics)
        }
        return ItemValues(
            about,
            arrays["ids"],
            arrays["part"].astype(np.int64),
            arrays["gold"].astype(np.float64),
            values,
        )


def has_items(path: Path, made_of: tuple[str, str, str]) -> bool:
    """Whether the file holds items of these weights, data and version of mteb."""
    try:
        about = read_items(path).about
    except InputError:
        return False
    return (about.weights, about.data, about.mteb) == made_of


def paired(first: ItemValues, second: ItemValues) -> tuple[ItemValues, ItemValues]:
    """Both with the same items in the same order: that of the first.

    Raises:
        InputError: other data, or items that only one of them has; says how many.
    """
    names = [f"{one.about.run} step {one.about.step}" for one in (first, second)]
    task = first.about.task
    if first.about.data != second.about.data:
        raise InputError(
            f"{task}: {names[0]} was measured on data {first.about.data} and {names[1]} on "
            f"{second.about.data}; evaluate both on the same data"
        )
    orders = [_order(one) for one in (first, second)]
    keys = [
        np.column_stack([one.part, one.ids])[order]
        for one, order in zip((first, second), orders, strict=True)
    ]
    if first.about.subsets != second.about.subsets or not np.array_equal(keys[0], keys[1]):
        left, right = (set(map(tuple, key.tolist())) for key in keys)
        raise InputError(
            f"{task}: {names[0]} has {len(first.ids)} items and {names[1]} {len(second.ids)}, "
            f"{len(left - right)} only in the first and {len(right - left)} only in the second; "
            "evaluate both on the same data"
        )
    back = np.empty_like(orders[0])
    back[orders[0]] = orders[1]  # row of the second for each row of the first
    values = {metric: column[back] for metric, column in second.values.items()}
    turned = second._replace(
        ids=second.ids[back], part=second.part[back], gold=second.gold[back], values=values
    )
    return first, turned


def _order(items: ItemValues) -> NDArray[np.int64]:
    """Rows by part and id; equal ones in the order of the data, (n,)."""
    return np.lexsort((items.ids, items.part)).astype(np.int64)


def _short(values: Floats) -> NDArray[Any]:
    """float32 if that loses nothing: ties of similarities must stay ties, and others none."""
    short = values.astype(np.float32)
    return short if np.array_equal(short.astype(np.float64), values) else values
