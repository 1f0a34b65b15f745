"""metrics.jsonl: what training logged, a line a logged step and a line a validation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from embedtrain.files.measured.lines import CURE, placed_lines
from embedtrain.types import InputError

METRICS = "metrics.jsonl"


class Logged(NamedTuple):
    """One line."""

    step: int  # the optimiser step that was taken, from 0
    values: dict[str, float]  # by name: train/loss, train/lr, val/mean, ...; nan and inf as such


def read_metrics(path: Path) -> list[Logged]:
    """The lines in file order; an absent file has none. A line that a killed writer cut off is left out.

    Raises:
        InputError: a line is not what training writes; names file and line.
    """
    return [_logged(line, where) for where, line in placed_lines(path)]


def _logged(line: str, where: str) -> Logged:
    try:
        row = json.loads(line)
        return Logged(int(row.pop("step")), {str(name): float(value) for name, value in row.items()})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{where} is not a line of metrics. {CURE}") from error
