"""health.jsonl: how the vectors of each prefix lie in space, measured while a task is evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from embedtrain.files.measured.lines import read_lines, replace_lines

HEALTH = "health.jsonl"
BINS = 40  # of the histograms, of equal width over cosines -1..1


class Health(NamedTuple):
    """The vectors of one sub-model on a sample of a task's texts; of float32 vectors."""

    run: str
    step: int  # optimiser steps taken; 0 is the untouched backbone
    task: str
    layer: int
    dim: int
    weights: str  # hash of the weights
    texts: int  # distinct ones in the sample
    uniformity: float  # log of the mean of exp(-2 |x - y|^2) over pairs of texts; lower is more even
    effective_rank: float  # exp of the entropy of the singular values, 1..min(texts, dim)
    hubness: float  # skewness of how often a text is among the 10 nearest of others
    cka: float  # linear CKA with the last measured layer at its largest dim, 0..1
    mean_cosine: float  # of pairs of different texts
    negative: tuple[int, ...]  # cosines of pairs of different texts that are not positives: BINS counts
    pairs: int = 0  # positive pairs in the sample; 0 where the task has none
    alignment: float | None = None  # mean of |x - y|^2 over positive pairs; lower is better
    positive: tuple[int, ...] = ()  # cosines of positive pairs: BINS counts, or none


def read_health(folder: Path) -> list[Health]:
    """The lines of a folder's health.jsonl; none where there is no file.

    Raises:
        InputError: a line is not what `add_health` writes.
    """
    return read_lines(folder / HEALTH, Health)


def add_health(folder: Path, lines: Sequence[Health]) -> None:
    """Puts lines into the file; those of the same run, step, task, layer and dim go."""
    if lines:
        replace_lines(folder / HEALTH, Health, lines, lambda line: line[:5])
