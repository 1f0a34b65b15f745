"""The settings of `embedtrain-rotate`, as those of commands.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from embedtrain.settings.checks import Checked
from embedtrain.settings.component import Component


@dataclass(frozen=True, kw_only=True)
class RotateSettings(Checked):
    """Every key `embedtrain-rotate` reads."""

    model: str  # run or model folder, or hub name
    source: Any  # rows as of training: a file, a folder, a hub name, or a list; `data=` says the same
    out: str  # folder of the rotated model
    trust_remote_code: bool = False  # run the code in the model's folder (`auto_map`)
    layers: list[int] | None = None  # None: those of the trained sub-models, or all
    dims: list[int] | None = None  # None: those of the trained sub-models, or the width and its halves
    rows: int = 10_000  # most rows that are read, drawn by the seed
    validation_rows: int = 500  # of these, which choose a layer's rotation; at most a third
    loss: Component  # of pairs; rows with scores have CoSENT's
    # what is tried, and what reflections are trained behind
    starts: list[Literal["identity", "pca", "random"]] = field(
        default_factory=lambda: ["identity", "pca", "random"]
    )
    reflections: int = 8  # of a layer, an even number; 0 trains none
    lr: float = 0.01  # of the reflections, falling to 0
    epochs: int = 10  # passes over the vectors
    batch_size: int = 128  # rows that are contrasted with each other
    seed: int = 0
    device: str = "auto"  # as of `EvaluateSettings`
    overwrite: bool = False
