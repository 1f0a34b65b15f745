"""cost.jsonl: milliseconds a text of each layer, measured on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from embedtrain.files.measured.lines import read_lines, replace_lines

COST = "cost.jsonl"


class Speed(NamedTuple):
    """How fast texts are encoded with the first `layer` blocks; every dim of a layer costs the same."""

    run: str
    layer: int
    texts: int  # encoded at once: 1 is one query
    tokens: int  # of each text
    warm_up: int  # calls before those that count
    repetitions: int  # calls that count
    ms: float  # a text: the median over calls
    low: float  # the fastest call
    high: float  # the slowest call
    device: str  # cpu, cuda
    threads: int  # of torch


def read_cost(folder: Path) -> list[Speed]:
    """The lines of a folder's cost.jsonl; none where there is no file.

    Raises:
        InputError: a line is not what `add_cost` writes.
    """
    return read_lines(folder / COST, Speed)


def add_cost(folder: Path, lines: Sequence[Speed]) -> None:
    """Puts lines into the file; those of the same run, layer and number of texts go."""
    if lines:
        replace_lines(folder / COST, Speed, lines, lambda line: (line.run, line.layer, line.texts))
