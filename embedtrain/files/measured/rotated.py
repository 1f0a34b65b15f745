"""rotation.json: the rotations that were tried for each layer of a model, and their held-out scores."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from embedtrain.files.measured.lines import read_value, write_value

ROTATED = "rotation.json"


class Tried(NamedTuple):
    """One rotation of one layer."""

    layer: int
    name: str  # "as it is", "pca", "random", or what reflections were trained behind: "trained from pca"
    score: float  # mean over the dims on the held-out rows, in the units of the metric
    scores: tuple[float, ...]  # of each of the dims
    chosen: bool  # whether the model has it


class Rotated(NamedTuple):
    """How a model was rotated."""

    model: str  # what was rotated: whole path or hub name
    metric: str  # spearman of rows with scores, else ndcg_at_10
    dims: tuple[int, ...]
    rows: int  # that the rotations were made from
    validation_rows: int  # that chose among them
    tried: tuple[Tried, ...]


def read_rotated(folder: Path) -> Rotated | None:
    """What the rotation.json of a model folder says; None where there is none.

    Raises:
        InputError: it is not what `write_rotated` writes.
    """
    return read_value(folder / ROTATED, Rotated)


def write_rotated(folder: Path, rotated: Rotated) -> None:
    """Replaces rotation.json."""
    write_value(folder / ROTATED, rotated)
