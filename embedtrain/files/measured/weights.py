"""weights.json: how far training moved the weights and the vectors of each cut."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from embedtrain.files.measured.lines import read_value, write_value

WEIGHTS = "weights.json"


class Moved(NamedTuple):
    """A group of parameters before and after; adapters count as merged."""

    block: str  # embeddings, 1..num_layers, other, pooling
    parameters: int
    moved: float  # |after - before| / |before|, Frobenius norms over the group
    largest: float  # the largest change of one number
    changed: float  # share of the numbers that are no longer what they were, 0..1


class MovedCut(NamedTuple):
    """The vectors of some training texts before and after."""

    layer: int
    dim: int
    cosine: float  # mean over texts of the cosine of the two vectors of a text
    least: float


class Adapters(NamedTuple):
    """The update of all LoRA adapters, B A times its scale, against the weights below them."""

    layers: int  # linear layers that have one
    moved: float  # |B A| / |W|
    changed: float  # share of the numbers of these layers that merging changes, in the dtype of the model


class Rows(NamedTuple):
    """Some training rows: whether a positive is nearer than the row's negatives and other rows' positives."""

    rows: int
    nearest_before: float  # share of the rows whose positive is the nearest, 0..1
    nearest: float  # the same after training


class Weights(NamedTuple):
    """How far the published weights are from those that the run began with."""

    run: str
    step: int  # optimiser steps
    blocks: tuple[Moved, ...]  # in the order of the model
    cuts: tuple[MovedCut, ...]  # those that were trained
    texts: int  # that `cuts` are measured on
    adapters: Adapters | None = None  # None: of a run without
    rows: Rows | None = None  # None: of rows that are no pairs

    @property
    def moved(self) -> float:
        """The share of numbers that changed, over all blocks, 0..1."""
        every = sum(block.parameters for block in self.blocks)
        return sum(block.changed * block.parameters for block in self.blocks) / max(1, every)


def read_weights(folder: Path) -> Weights | None:
    """What a run folder's weights.json says; None where there is none.

    Raises:
        InputError: it is not what `write_weights` writes.
    """
    return read_value(folder / WEIGHTS, Weights)


def write_weights(folder: Path, weights: Weights) -> None:
    """Replaces weights.json."""
    write_value(folder / WEIGHTS, weights)
