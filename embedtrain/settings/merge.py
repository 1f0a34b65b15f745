"""The settings of `embedtrain-merge`, as those of commands.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from embedtrain.settings.checks import Checked
from embedtrain.settings.commands import EvaluationSettings
from embedtrain.settings.component import Component


@dataclass(frozen=True, kw_only=True)
class MergeSettings(Checked):
    """Every key `embedtrain-merge` reads."""

    runs: list[str]  # run or model folders, or hub names
    name: str | None = None  # of the new run; None: merged-<runs>
    output_root: str = "runs"
    overwrite: bool = False
    seed: int = 0  # of what methods draw, and of the rows of the probe
    method: Component
    base: str | None = None  # what training began with; None: what the runs record
    trust_remote_code: bool = False  # run the code in the folders of runs and base (`auto_map`)
    base_share: float = 0.0  # of the base in the result, whatever the method, against forgetting
    probe: Any = None  # training rows, or a list of sources that count alike, for methods that ask a loss
    probe_rows: int = 512  # most rows of the probe
    probe_batch_size: int = 64  # rows that are contrasted with each other
    loss: Component  # of pairs; rows with scores have CoSENT's
    device: str = "auto"  # as of `EvaluateSettings`
    # no tasks: what the first run was measured on
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
