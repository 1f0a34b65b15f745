"""The settings of commands, a dataclass each: their names, types and defaults. tools.py has three more.

Groups that a config chooses by name are a `Component`, or None where the option is `none`; what is inside
them is checked against the signature of their target.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from embedtrain.settings.checks import Checked
from embedtrain.settings.component import Component
from embedtrain.types import Dtype, InputError


@dataclass(frozen=True, kw_only=True)
class DataSettings(Checked):
    """Which rows train and validate a run, and how batches are made of them.

    Args:
        train: a path or hub name, or a list of them; each may be a mapping with "source" and any of the
            settings of a dataset (see `entries.KEYS` and docs/data.md).
        validation: the same without those settings, or None.
        validation_fraction: share of the training rows split off for validation (see `held_out`).
        validation_rows: the same as a number of rows.
        validation_limit: use only that many validation rows, drawn by the seed.
        batch_size: rows per micro-step over all ranks together.
        batches: "one_task" makes every batch of one dataset, "mixed" draws each from all of them.
        sampling: what decides the share of a dataset: its rows and epochs ("proportional"), its weight
            ("weights"), or its size to the power alpha ("temperature").
        alpha: of "temperature", 0 (all alike) to 1 (proportional).
        group_by_length: rows of similar length share batches.
        max_negatives: most negatives of a row per epoch; all when None.
        draw_negatives: which, where a row has more: "rotate", "first", "sample", or "all" of them.
        columns: our field -> name in the rows, for sources that do not say it themselves.
        on_bad_row: what becomes of a row that cannot be used: "error" stops at it, "skip" leaves it out and
            reports it, "quarantine" also keeps its text to be repaired (see `BadRows`).
        cache: folder of the rows of streamed datasets; `.rows` beside the run when None.
        num_workers: processes that collate ahead; 0 collates in the training process.

    Raises:
        InputError: if a number is out of range or two settings contradict each other.
    """

    train: Any
    validation: Any = None
    validation_fraction: float = 0.0
    validation_rows: int | None = None
    validation_limit: int | None = None
    batch_size: int = 64
    batches: Literal["one_task", "mixed"] = "one_task"
    sampling: Literal["proportional", "weights", "temperature"] = "proportional"
    alpha: float = 0.5
    group_by_length: bool = False
    max_negatives: int | None = None
    draw_negatives: Literal["rotate", "first", "sample", "all"] = "rotate"
    columns: dict[str, str] | None = None
    on_bad_row: Literal["error", "skip", "quarantine"] = "error"
    cache: str | None = None
    num_workers: int = 0

    def __post_init__(self) -> None:
        """Refuse what nobody can mean."""
        super().__post_init__()
        parts = (self.validation is not None, self.validation_fraction != 0, self.validation_rows is not None)
        if sum(parts) > 1:
            raise InputError(
                "give one of validation, validation_fraction and validation_rows: they each say what to "
                "validate on."
            )
        if self.draw_negatives == "all" and self.max_negatives is not None:
            raise InputError("data.draw_negatives=all contradicts data.max_negatives: say one of the two.")


@dataclass(frozen=True, kw_only=True)
class TrainerSettings(Checked):
    """How long a run trains, on what, and what it writes on the way; names as Lightning's Trainer has them.

    Args:
        max_epochs: passes over the rows; the data module lays them end to end in one epoch of Lightning.
        max_steps: optimiser steps; when given it alone decides the length, `max_epochs` only the proportions.
        accelerator: "cpu", "gpu" or "auto": where the run trains, is measured and mines.
        devices: processes per node; more than one trains with DDP, or with FSDP2 if `shard`.
        num_nodes: machines.
        precision: Lightning's name of it, or "auto": bf16-mixed where the device is fast at it, else 32-true.
        accumulate_grad_batches: batches per optimiser step. They never contrast with each other.
        gradient_clip_val: largest gradient norm, None for no clipping.
        val_check_interval: optimiser steps between validations when at least 1, else the share of the run.
        checkpoint_every_n_steps: optimiser steps between saves.
        save_total_limit: how many of the newest checkpoints are kept.
        log_every_n_steps: optimiser steps between lines of metrics.jsonl.
        timeout_minutes: how long ranks wait for each other, e.g. while rank 0 evaluates.
        shard: let ranks share weights, gradients and optimiser state of a backbone too large for one (FSDP2).
        compile: let torch.compile make one kernel of many, block by block, once for texts of all lengths.

    Raises:
        InputError: if a number is out of range or settings exclude each other.
    """

    max_epochs: int = 1
    max_steps: int | None = None
    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    precision: str = "auto"
    accumulate_grad_batches: int = 1
    gradient_clip_val: float | None = 1.0
    val_check_interval: float = 0.25
    checkpoint_every_n_steps: int = 500
    save_total_limit: int = 2
    log_every_n_steps: int = 10
    timeout_minutes: float = 120.0
    shard: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        """Refuse what nobody can mean."""
        super().__post_init__()
        if self.shard and self.precision == "16-mixed":
            raise InputError(
                "trainer.shard cannot be used with precision=16-mixed: each rank would scale its share of "
                "the gradients by itself. Use bf16-mixed or 32-true"
            )


@dataclass(frozen=True, kw_only=True)
class Measurement(Checked):
    """Which cells are measured on which tasks, and how."""

    tasks: list[str]  # "local", local names, mteb names
    data_root: str | None = None  # folder in the local data layout, or filled by a prefetch
    languages: list[str] | None = None  # eng, deu, ...: parts of official tasks that are in any; None: all
    layers: list[int] | None = None  # None: the layers of the trained sub-models, or the full depth
    dims: list[int] | None = None  # None: the dims of the trained sub-models, or the full width
    dtypes: list[Dtype] = field(default_factory=lambda: ["float32"])  # also int8, binary, binary_rescore, ...
    # cut, then length one; "pre": length one, then cut, as mteb's embed_dim does
    normalize: Literal["post", "pre"] = "post"
    rescore_multiplier: int = 4  # dtypes with rescore rank the best k x this by sign again
    scoring_workers: int | None = None  # processes that score; None: one a core, at most 4


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings(Measurement):
    """What `embedtrain-train` measures before and after training."""

    tasks: list[str] = field(default_factory=list)  # empty: no evaluation
    before: bool = True  # also measure the untouched backbone
    after_stages: bool = True  # also measure what each stage but the last hands on
    tolerance: float = 0.02  # share of the whole model's score that the recommended cut may lose
    max_bytes: int | None = None  # of a vector: recommend the best cut within it
    max_ms: float | None = None  # milliseconds a text in a batch: likewise


@dataclass(frozen=True, kw_only=True)
class TrainSettings(Checked):
    """Every key `embedtrain-train` reads."""

    name: str
    output_root: str = "runs"
    overwrite: bool = False
    seed: int = 0
    backbone: Component
    pooling: Component | None = None
    rotation: Component | None = None
    data: DataSettings
    step: Component
    plan: Component
    loss: Component
    distill: Component | None = None
    objective: Component
    negatives: Component | None = None
    guide: Component | None = None
    # "values": documents of other ranks are constants; "none": each rank alone
    gather: Literal["gradient", "values", "none"] = "gradient"
    gradcache: Component | None = None
    queue: Component | None = None
    mining: Component | None = None
    optim: Component
    trainer: TrainerSettings = TrainerSettings()
    logger: Component | None = None
    evaluation: EvaluationSettings = EvaluationSettings()
    eval_during: Component | None = None
    exports: list[list[int]] = field(default_factory=list)  # [layer, dim] cuts written after training
    final_weights: Literal["last", "best"] = "last"  # "best": those of best.ckpt are measured and written
    optimized_metric: str | None = None  # what a sweeper gets; None: after/mean, or without scores val/mean
    # {name: ..., and what the stage has for itself}, in order
    stages: list[Any] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(Measurement):
    """Every key `embedtrain-evaluate` reads."""

    model: str | None = None  # needed but to prefetch
    trust_remote_code: bool = False  # run the code in its folder (`auto_map`)
    prefetch: bool = False  # fill data_root with the data of the tasks (and a hub model), evaluate nothing
    offline: bool = False  # ask nothing of the internet, and prove first that nothing is missing
    verify: bool = False  # offline, prefetch: also compare the hashes of all files, and load every task
    device: str = "auto"  # auto: the GPU of this rank, else MPS, else the CPU; cpu, cuda, cuda:1, mps
    funnels: list[Any] = field(default_factory=list)  # {cells: [[layer, dim], ...], keep: [k, ...]}
    plan_only: bool = False  # print what each task costs, and stop; `plan=true` says the same
    store: str | None = None  # folder of vectors; None: vectors/ in the output folder; "none": no store
    store_gb: float = 20.0  # what that folder may hold
    memory_gb: float = 8.0  # vectors that each process holds in memory; beyond, they are read from the store
    store_dtype: Literal["float32", "float16"] = "float32"
    output: str | None = None  # folder for scores.jsonl and mteb/; None: evaluation-<model> in output_root
    output_root: str = "runs"


@dataclass(frozen=True, kw_only=True)
class ExportSettings(Checked):
    """Every key `embedtrain-export` reads."""

    model: str
    trust_remote_code: bool = False  # run the code in its folder (`auto_map`)
    out: str
    layer: int | None = None  # None: full depth
    dim: int | None = None  # None: full width
    onnx: bool = False  # ONNX graphs in the folder too
    funnel: dict[str, Any] | None = None  # {cells: [[layer, dim], ...], keep: [k, ...]}: how stores search
    stores: list[str] = field(default_factory=list)  # which get files under for/; `for=a,b` says the same
    device: str = "auto"  # as of `EvaluateSettings`
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class DoctorSettings(Checked):
    """Every `doctor.` key of `embedtrain-doctor`, which otherwise reads those of `TrainSettings`."""

    rows: int = 100_000  # most training rows that are looked at, over all datasets
    batch_rows: int = 64  # most rows of a batch that are encoded; larger ones are cut
    overlap: float = 0.01  # share of an evaluation's texts in training above which it is a warning
    memory_gb: float | None = None  # of the device; None: what it says of itself
    out: str | None = None  # the report; None: <output_root>/<name>-doctor.json


@dataclass(frozen=True, kw_only=True)
class ExamineSettings(TrainSettings):
    """Every key `embedtrain-doctor` reads: those of the run that it examines, and its own."""

    doctor: DoctorSettings = DoctorSettings()


@dataclass(frozen=True, kw_only=True)
class MineSettings(Checked):
    """Every key `embedtrain-mine` reads."""

    source: str  # rows as of training, or retrieval/NAME in data_root
    out: str  # .jsonl, .jsonl.gz or .parquet
    data_root: str | None = None
    split: str | None = None
    columns: dict[str, str] | None = None
    on_bad_row: Literal["error", "skip", "quarantine"] = (
        "error"  # skip, quarantine: left out and reported in <out>.bad_rows
    )
    corpus: str | None = None  # file of {"text", ["title"]}; None: the documents of the source
    teacher: Component
    selection: Component
    index: Literal["exact", "ivf", "hnsw"] = "exact"
    device: str = "auto"  # as of `EvaluateSettings`: where the teacher runs and documents are searched
    cross_encoder: str | None = None  # folder or hub name; its scores replace the teacher's
    own_negatives: Literal["drop", "keep"] = "drop"  # a row's own
    use_instructions: bool = False  # rows' instructions come before queries, instead of the teacher's prompt
    store: str | None = None  # folder of vectors; None: vectors/ beside `out`
    shard: str | None = None  # "1/4": encode the first of four parts, and nothing else
    seed: int = 0  # of draws
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class CompareSettings(Checked):
    """Every key `embedtrain-compare` reads."""

    runs: list[str]  # folders with scores, FOLDER@STEP for another step than the last
    tasks: list[str] | None = None  # None: all, which must then be the same
    cells: list[Any] | None = None  # [layer, dim] or [layer, dim, dtype]; None: all that the runs share
    seeds: str | None = None  # "_s*": what follows each of `runs`, one folder a seed
    metric: str | None = None  # None: the first that a task writes for its items
    alpha: float = 0.05  # p below is a difference; intervals hold 1 - alpha
    correction: Literal["holm", "bh", "bonferroni", "none"] = "holm"  # for many comparisons
    interval: Literal["bca", "percentile"] = "bca"
    resamples: int = 2000  # of the bootstrap, and random sign flips
    seed: int = 0  # of both
    subset: bool = False  # choose tasks that rank the cells as all tasks do, instead of comparing
    floor: float = 0.95  # Spearman correlation that the chosen tasks must keep
    output: str | None = None  # folder for comparison.json; None: comparison-<runs> in output_root
    output_root: str = "runs"


@dataclass(frozen=True, kw_only=True)
class ReportSettings(Checked):
    """Every key `embedtrain-report` reads."""

    runs: list[str]  # run folders, or what `embedtrain-evaluate` wrote; the page also takes unfinished ones
    output: str | None = None  # folder for report.html; None: report-<runs> in output_root
    output_root: str = "runs"
    serve: bool = False  # show the page at 127.0.0.1 and keep it up to date, instead of writing it
    port: int = 8765  # of that address; 0 takes a free one
    resamples: int = 1000  # of the bootstrap, for runs whose items are compared
