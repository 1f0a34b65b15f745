"""Validation rows taken out of what the entries of `data.train` hold in memory."""

from __future__ import annotations

from collections.abc import Sequence

from embedtrain.data.entries import Entry
from embedtrain.data.read.sources import Example
from embedtrain.data.splitting import held_out
from embedtrain.data.stores.memory import Store
from embedtrain.types import InputError

Part = tuple[Entry, Store | list[Example]]


def split_off(
    parts: Sequence[Part], *, fraction: float | None = None, rows: int | None = None, seed: int
) -> tuple[list[Part], list[Example]]:
    """(what remains for training, validation rows of all entries together); see `held_out`.

    Raises:
        InputError: as `held_out`, and for an entry that is streamed.
    """
    every: list[Example] = []
    for entry, read in parts:
        if not isinstance(read, list):
            raise InputError(
                f"{entry.read['source']} is streamed, so no validation rows can be split off: give "
                "data.validation a source of its own."
            )
        every += read
    out = iter(held_out(every, fraction=fraction, rows=rows, seed=seed).tolist())
    validation: list[Example] = []
    kept: list[Part] = []
    for entry, read in parts:
        assert isinstance(read, list)
        remain: list[Example] = []
        for example in read:
            (validation if next(out) else remain).append(example)
        kept += [(entry, remain)] if remain else []
    return kept, validation
