"""The settings of the commands that make something of rows or models at hand, as those of commands.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

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


@dataclass(frozen=True, kw_only=True)
class PairsSettings(Checked):
    """Every key `embedtrain-pairs` reads."""

    source: Any  # files or folders of documents, one or a list
    out: str  # .jsonl, .jsonl.gz or .parquet
    maker: Component
    columns: dict[str, str] | None = None  # text, title, id, translation -> name in the rows
    on_bad_row: Literal["error", "skip", "quarantine"] = "error"  # as of `MineSettings`
    check_with: str | None = None  # a model; pairs whose text it does not find for the query are left out
    check_rank: int = 1  # among how many first texts it must find it
    device: str = "auto"  # as of `EvaluateSettings`: where models run
    store: str | None = None  # folder of vectors; None: vectors/ beside `out`
    seed: int = 0  # of draws
    overwrite: bool = False


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
