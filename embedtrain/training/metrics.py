"""metrics.jsonl, one line per logged step, and the same as metrics.csv."""

from __future__ import annotations

import csv
import io
import json
import math
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from embedtrain.escaping import csv_cell
from embedtrain.files.atomic import append, sync, write_text
from embedtrain.files.measured.metrics import METRICS
from embedtrain.files.owned import gone


class FileLogger(Logger):
    """Appends each logged step to `<folder>/metrics.jsonl`; `metrics.csv` is made from it when training ends.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self.path = Path(folder) / METRICS

    @property
    def name(self) -> str:
        """Lightning's name of this logger."""
        return "files"

    @property
    def version(self) -> str:
        """One version: the run folder is the version."""
        return ""

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Nothing: config.yaml holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append one line; a value that JSON cannot hold becomes its name ("nan", "inf")."""
        row = {
            key: value if math.isfinite(value) else str(value)
            for key, value in metrics.items()
            if key != "epoch"  # the whole run is one Lightning epoch
        }
        try:
            append(self.path, (json.dumps({"step": step, **row}) + "\n").encode(), flushed=False)
        except FileNotFoundError as error:
            raise gone(self.path.parent) from error

    @rank_zero_only
    def save(self) -> None:
        """See that what has been written is on the disk."""
        if self.path.exists():
            sync(self.path)

    @rank_zero_only
    def forget_after(self, step: int) -> None:
        """Drop lines past `step`: a resumed run takes those steps again. A torn last line is dropped too."""
        if not self.path.exists():
            return
        lines = [line for line in self.path.read_text("utf-8").splitlines() if _step_of(line) < step]
        write_text(self.path, "".join(f"{line}\n" for line in lines))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write metrics.csv, one column per metric."""
        if not self.path.exists():
            return
        rows = [json.loads(line) for line in self.path.read_text("utf-8").splitlines()]
        columns = list(dict.fromkeys(key for row in rows for key in row))
        table = io.StringIO(newline="")
        writer = csv.writer(table)
        writer.writerow(map(csv_cell, columns))
        writer.writerows([_cell(row.get(column, "")) for column in columns] for row in rows)
        write_text(self.path.with_suffix(".csv"), table.getvalue())


def _cell(value: object) -> object:
    return csv_cell(value) if isinstance(value, str) and value != "-inf" else value


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return math.inf
