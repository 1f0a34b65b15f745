"""Examples to train and validation so that nothing asked in validation was seen in training."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embedtrain.data.entries import Entry
from embedtrain.data.read.sources import Example
from embedtrain.data.stores.memory import Store
from embedtrain.types import Content, InputError

logger = logging.getLogger(__name__)

Part = tuple[Entry, Store | list[Example]]


def split_off(
    parts: Sequence[Part], *, fraction: float | None = None, rows: int | None = None, seed: int
) -> tuple[list[Part], list[Example]]:
    """(what remains for training, validation rows of all entries together); see `held_out`.

    Raises:
        InputError: as `held_out`, and for an entry that is streamed.
    """
    examples: list[Example] = []
    for entry, read in parts:
        if not isinstance(read, list):
            raise InputError(
                f"{entry.read['source']} is streamed, so no validation rows can be split off: give "
                "data.validation a source of its own."
            )
        examples += read
    out = iter(held_out(examples, fraction=fraction, rows=rows, seed=seed).tolist())
    validation: list[Example] = []
    training: list[Part] = []
    for entry, read in parts:
        assert isinstance(read, list)
        remain: list[Example] = []
        for example in read:
            (validation if next(out) else remain).append(example)
        training += [(entry, remain)] if remain else []
    return training, validation


def held_out(
    examples: Sequence[Example], *, fraction: float | None = None, rows: int | None = None, seed: int
) -> NDArray[np.bool_]:
    """True on the rows of validation, (rows,): a function of the examples and the seed alone.

    Groups stay whole: rows that share a query or a positive, also through other rows, are one group.
    Groups are shuffled by the seed and taken for validation while they fit into the wanted number of rows,
    so validation may be a little smaller than asked for, never larger. Should that leave it less than half
    as large (a few positives hold most rows together), the groups are the rows of one query text instead,
    and a warning says that validation positives may occur in training.

    Args:
        examples: at least two.
        fraction: share of the rows for validation, in (0, 1); give this or `rows`.
        rows: number of rows for validation, 1..len(examples) - 1.
        seed: 0 or more.

    Raises:
        InputError: when the size is out of range or no group is small enough.
    """
    wanted = _wanted(len(examples), fraction, rows)
    for groups in (_groups(examples, with_positives=True), _groups(examples, with_positives=False)):
        taken = _take(groups, wanted, seed)
        if 2 * taken.sum() >= wanted:
            break
        logger.warning("validation by whole groups of shared positives would have %d rows, not %d: only rows "
                       "of one query stay together, so its positives may occur in training",
                       taken.sum(), wanted)  # fmt: skip
    if not taken.any():
        raise InputError(
            f"no validation set of {wanted} rows can be split off {len(examples)} rows: too many share one "
            "query. Give a validation file, or ask for more rows."
        )
    return taken


def _wanted(count: int, fraction: float | None, rows: int | None) -> int:
    if (fraction is None) == (rows is None):
        raise InputError("a validation split needs a fraction or a number of rows, one of the two.")
    if fraction is not None and not 0 < fraction < 1:
        raise InputError(f"validation_fraction must be between 0 and 1, got {fraction}.")
    wanted = rows if rows is not None else max(1, math.floor(count * float(fraction or 0)))
    if not 1 <= wanted < count:
        raise InputError(f"validation of {wanted} rows cannot be split off {count} rows.")
    return wanted


def _groups(examples: Sequence[Example], *, with_positives: bool) -> np.ndarray:
    """Group number of every row, counted in order of first appearance: (rows,) int64."""
    parent: list[int] = []
    number: dict[Content, int] = {}

    def root(content: Content) -> int:
        node = number.setdefault(content, len(parent))
        if node == len(parent):
            parent.append(node)
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    for example in examples:
        query = root(example.query)
        for text in example.positives if with_positives else ():
            parent[root(text)] = query
    roots = [root(example.query) for example in examples]
    order = {node: group for group, node in enumerate(dict.fromkeys(roots))}
    return np.array([order[node] for node in roots], dtype=np.int64)


def _take(groups: np.ndarray, wanted: int, seed: int) -> NDArray[np.bool_]:
    """True on rows of validation, (rows,) bool: shuffled groups, each taken if it still fits."""
    sizes = np.bincount(groups)
    chosen = np.zeros(len(sizes), dtype=bool)
    room = wanted
    for group in np.random.default_rng(seed).permutation(len(sizes)):
        if sizes[group] <= room:
            chosen[group] = True
            room -= sizes[group]
        if room == 0:
            break
    taken: NDArray[np.bool_] = chosen[groups]
    return taken
