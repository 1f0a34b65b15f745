"""merge.json: what a merged model is made of, and how it compares with each ingredient."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from embedtrain.files.measured.lines import read_value, write_value

MERGE = "merge.json"


class Compared(NamedTuple):
    """The merged model against an ingredient: means over all cells of the grid and all tasks."""

    score: float  # of the ingredient, in the units of the scores (mostly 0..1)
    difference: float  # merged - ingredient
    low: float  # interval of 95 % of the difference, by a bootstrap of the items of each task
    high: float
    p: float  # two-sided, corrected by Holm over the ingredients
    verdict: Literal["better", "worse", "not distinguishable"]  # of the merged model


class Part(NamedTuple):
    """One ingredient."""

    name: str
    source: str  # whole path of the run or folder, or hub name
    weights: str  # their hash
    compared: Compared | None = None  # None: not measured, or its tasks keep no items


class Merge(NamedTuple):
    """What a merged model is made of."""

    run: str
    method: str  # the class
    chosen: tuple[str, ...]  # what it found, a line each: shares, losses, angles
    base: str  # path or hub name of what training began with; "" where it is not known
    base_share: float
    parts: tuple[Part, ...]
    score: float | None = None  # mean of the merged model over cells and tasks


def read_merge(folder: Path) -> Merge | None:
    """What a run folder's merge.json says; None where there is none.

    Raises:
        InputError: it is not what `write_merge` writes.
    """
    return read_value(folder / MERGE, Merge)


def write_merge(folder: Path, merge: Merge) -> None:
    """Replaces merge.json."""
    write_value(folder / MERGE, merge)
