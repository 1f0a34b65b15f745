"""verdict.json: what a run is worth, in a few numbers, and what to try next."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from embedtrain.files.measured.lines import read_value, write_value
from embedtrain.types import Dtype

VERDICT = "verdict.json"
Judged = Literal["better", "worse", "not distinguishable"]


class Change(NamedTuple):
    """A task before and after training, at the whole model, in the units of the score (mostly 0..1)."""

    task: str
    split: str
    metric: str
    layer: int
    dim: int
    dtype: str
    before: float
    after: float
    low: float | None = None  # interval of the difference; None where no items are kept
    high: float | None = None
    p: float | None = None  # corrected over the tasks
    verdict: Judged | None = None  # of after; None where no items are kept

    @property
    def difference(self) -> float:
        """After - before."""
        return self.after - self.before


class Cut(NamedTuple):
    """The cell to ship."""

    layer: int
    dim: int
    dtype: Dtype
    why: str  # the rule that chose it, in words
    score: float  # mean over tasks, x 100
    best: float  # the same of the whole model in float32
    share: float  # score / best
    bytes_per_vector: int
    ms: float | None = None  # a text in a batch; None where it was not measured
    query_ms: float | None = None  # one query


class Finding(NamedTuple):
    """Something that looks wrong."""

    name: str  # the diagnosis: unchanged_weights, merged_to_nothing, forgetting, ...
    text: str  # what was seen and the likely cause
    cure: str  # a command that can be typed


class Verdict(NamedTuple):
    """What a run is worth; each part is empty where the run did not measure it."""

    run: str
    step: int
    lines: tuple[str, ...]  # the verdict in words, as the terminal shows it
    changes: tuple[Change, ...] = ()
    cut: Cut | None = None
    findings: tuple[Finding, ...] = ()
    moved: float | None = None  # share of the weights that changed, 0..1


def read_verdict(folder: Path) -> Verdict | None:
    """What a run folder's verdict.json says; None where there is none.

    Raises:
        InputError: it is not what `write_verdict` writes.
    """
    return read_value(folder / VERDICT, Verdict)


def write_verdict(folder: Path, verdict: Verdict) -> None:
    """Replaces verdict.json."""
    write_value(folder / VERDICT, verdict)
