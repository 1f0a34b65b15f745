"""Every top-level key of every command, a dataclass each. What is inside a group `config.build` checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

Group = dict[str, Any]


@dataclass
class EvaluationConfig:
    """What `embedtrain-train` measures before and after training."""

    tasks: list[str] = field(default_factory=list)  # "local", local names, mteb names; empty: no evaluation
    data_root: str | None = None  # folder in the local data layout
    layers: list[int] | None = None  # None: the layers of the plan's sub-models
    dims: list[int] | None = None  # None: the dims of the plan's sub-models
    before: bool = True  # also measure the untouched backbone


@dataclass
class RunConfig:
    """Every key `embedtrain-train` reads. Groups are checked by `build`."""

    name: str = MISSING
    output_root: str = "runs"
    overwrite: bool = False
    seed: int = 0
    backbone: Group = field(default_factory=dict)
    pooling: Group = field(default_factory=dict)
    data: Group = field(default_factory=dict)
    plan: Group = field(default_factory=dict)
    contrast: Group = field(default_factory=dict)
    distill: Group = field(default_factory=dict)
    objective: Group = field(default_factory=dict)
    negatives: Group = field(default_factory=dict)
    guide: Group = field(default_factory=dict)
    gather: str = "gradient"  # "values": documents of other ranks are constants; "none": each rank alone
    gradcache: Group = field(default_factory=dict)
    queue: Group = field(default_factory=dict)
    optim: Group = field(default_factory=dict)
    trainer: Group = field(default_factory=dict)
    logger: Group = field(default_factory=dict)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    exports: list[list[int]] = field(default_factory=list)  # [layer, dim] cuts written after training
    final_weights: str = "last"  # "best": those of best.ckpt are measured and written


@dataclass
class EvaluateConfig:
    """Every key `embedtrain-evaluate` reads."""

    model: str = MISSING
    tasks: list[str] = MISSING
    data_root: str | None = None
    layers: list[int] | None = None  # None: the layers of the trained sub-models, or the full depth
    dims: list[int] | None = None  # None: the dims of the trained sub-models, or the full width
    output: str | None = None  # folder for scores.jsonl and mteb/; None: evaluation-<model> in output_root
    output_root: str = "runs"


@dataclass
class ExportConfig:
    """Every key `embedtrain-export` reads."""

    model: str = MISSING
    out: str = MISSING
    layer: int | None = None  # None: full depth
    dim: int | None = None  # None: full width
    onnx: bool = False  # an ONNX graph instead of a sentence-transformers folder
    overwrite: bool = False


@dataclass
class CompareConfig:
    """Every key `embedtrain-compare` reads."""

    runs: list[str] = MISSING  # folders with scores, FOLDER@STEP for another step than the last
    tasks: list[str] | None = None  # None: all, which must then be the same
    cells: list[Any] | None = None  # [layer, dim] or [layer, dim, dtype]; None: all that the runs share
    seeds: str | None = None  # "_s*": what follows each of `runs`, one folder a seed
    metric: str | None = None  # None: what the items of a task keep first
    alpha: float = 0.05  # p below is a difference; intervals hold 1 - alpha
    correction: str = "holm"  # bh, bonferroni or none: for many comparisons
    interval: str = "bca"  # or percentile
    resamples: int = 2000  # of the bootstrap, and random sign flips
    seed: int = 0  # of both
    subset: bool = False  # choose tasks that rank the cells as all tasks do, instead of comparing
    floor: float = 0.95  # Spearman correlation that the chosen tasks must keep
    output: str | None = None  # folder for comparison.json; None: comparison-<runs> in output_root
    output_root: str = "runs"
