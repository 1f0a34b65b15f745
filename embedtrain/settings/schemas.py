"""Every top-level key of every command, a dataclass each. What is inside a group `config.build` checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

Group = dict[str, Any]


@dataclass
class Measurement:
    """Which cells are measured on which tasks, and how."""

    tasks: list[str] = MISSING  # "local", local names, mteb names
    data_root: str | None = None  # folder in the local data layout, or filled by a prefetch
    languages: list[str] | None = None  # eng, deu, ...: parts of official tasks that are in any; None: all
    layers: list[int] | None = None  # None: the layers of the trained sub-models, or the full depth
    dims: list[int] | None = None  # None: the dims of the trained sub-models, or the full width
    dtypes: list[str] = field(default_factory=lambda: ["float32"])  # also int8, binary, binary_rescore, ...
    normalize: str = "post"  # cut, then length one; "pre": length one, then cut, as mteb's embed_dim
    rescore_multiplier: int = 4  # the best so many x k by sign are ranked again by dtypes with rescore
    scoring_workers: int | None = None  # processes that score; None: one a core, at most 4


@dataclass
class EvaluationConfig(Measurement):
    """What `embedtrain-train` measures before and after training."""

    tasks: list[str] = field(default_factory=list)  # empty: no evaluation
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
    step: Group = field(default_factory=dict)
    plan: Group = field(default_factory=dict)
    loss: Group = field(default_factory=dict)
    distill: Group = field(default_factory=dict)
    objective: Group = field(default_factory=dict)
    negatives: Group = field(default_factory=dict)
    guide: Group = field(default_factory=dict)
    gather: str = "gradient"  # "values": documents of other ranks are constants; "none": each rank alone
    gradcache: Group = field(default_factory=dict)
    queue: Group = field(default_factory=dict)
    mining: Group = field(default_factory=dict)
    optim: Group = field(default_factory=dict)
    trainer: Group = field(default_factory=dict)
    logger: Group = field(default_factory=dict)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    eval_during: Group = field(default_factory=dict)
    exports: list[list[int]] = field(default_factory=list)  # [layer, dim] cuts written after training
    final_weights: str = "last"  # "best": those of best.ckpt are measured and written


@dataclass
class EvaluateConfig(Measurement):
    """Every key `embedtrain-evaluate` reads."""

    model: str | None = None  # needed but to prefetch
    prefetch: bool = False  # fill data_root with the data of the tasks (and a hub model), evaluate nothing
    offline: bool = False  # ask nothing of the internet, and prove first that nothing is missing
    verify: bool = False  # offline, prefetch: also compare the hashes of all files, and load every task
    funnels: list[Any] = field(default_factory=list)  # {cells: [[layer, dim], ...], keep: [k, ...]}
    plan_only: bool = False  # print what each task costs, and stop; `plan=true` says the same
    store: str | None = None  # folder of vectors; None: vectors/ in the output folder; "none": no store
    store_gb: float = 20.0  # what that folder may hold
    memory_gb: float = 8.0  # vectors that each process holds in memory; beyond, they are read from the store
    store_dtype: str = "float32"  # or float16: half the memory and disk
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
class DoctorConfig:
    """Every `doctor.` key of `embedtrain-doctor`, which otherwise reads those of `RunConfig`."""

    rows: int = 100_000  # most training rows that are looked at, over all datasets
    batch_rows: int = 64  # most rows of a batch that are encoded; larger ones are cut
    overlap: float = 0.01  # share of an evaluation's texts in training above which it is a warning
    memory_gb: float | None = None  # of the device; None: what it says of itself
    out: str | None = None  # the report; None: <output_root>/<name>-doctor.json


@dataclass
class MineConfig:
    """Every key `embedtrain-mine` reads. Groups are checked by `build`."""

    source: str = MISSING  # rows as of training, or retrieval/NAME in data_root
    out: str = MISSING  # .jsonl, .jsonl.gz or .parquet
    data_root: str | None = None
    split: str | None = None
    columns: dict[str, str] | None = None
    on_bad_row: str = "error"  # skip, quarantine: left out and reported in <out>.bad_rows
    corpus: str | None = None  # file of {"text", ["title"]}; None: the documents of the source
    teacher: Group = field(default_factory=dict)
    selection: Group = field(default_factory=dict)
    index: str = "auto"  # exact, faiss, ivf, hnsw
    cross_encoder: str | None = None  # folder or hub name; its scores replace the teacher's
    own_negatives: str = "drop"  # or keep: a row's own negatives
    use_instructions: bool = False  # rows' instructions stand before queries, instead of the teacher's prompt
    store: str | None = None  # folder of vectors; None: vectors/ beside `out`
    shard: str | None = None  # "1/4": encode the first of four parts, and nothing else
    seed: int = 0  # of draws
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
