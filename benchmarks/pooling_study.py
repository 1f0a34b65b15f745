"""Every pooling trained alike on a real backbone, beside mean pooling: scores, spread, paired tests.

    python benchmarks/pooling_study.py --data-root DIR [--seeds 3] [--steps 24] [--poolings NAME ...] [--tiny]

all-MiniLM-L6-v2 with each pooling that conf/pooling offers (the `_7b` sizes aside: they are for 4096-wide
states) and each `source` of the trainable ones. All get the same rows (STS-B training pairs with a score of
4 or more), order, steps, batch size, peak learning rate, InfoNCE at the full size, AdamW with 10 % warm-up
and linear decay; a seed draws the order, the dropout and what a pooling begins with. Scored are, x 100,
Spearman (stsbenchmark test, sickr dev), average precision (300 pairs of msrp dev), its mean over the answers
of 20 questions (trecqa dev), accuracy of the nearest neighbour (banking77, clinc150; 2 texts of each intent);
`--tasks ... cranfield` adds nDCG@10, for 10 s more a training.

The backbone was made with mean pooling on a billion pairs: a short training tells how fast another pooling
catches up with it, not which one is best after a long one.

Tests against mean pooling, pairs being data sets as in Tang & Yang 2024 (2409.02727): Wilcoxon signed-rank,
exact, two-sided, one difference (mean over seeds) a data set. With 6 data sets no p is below 0.031; nothing
is corrected for the number of poolings. The second test takes each (data set, seed) for a pair; those of one
data set are no independent draws, so its p is too small and only describes.

Default: 11 poolings x 3 seeds x (24 steps of 16 pairs, 4,900 texts to score), 16-20 minutes on 2 weak cores.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any

from full_size_tasks import Scores, measured, tasks
from in_process import (  # sets threads up
    BACKBONE,
    MAX_LENGTH,
    Row,
    arguments,
    fit,
    paired,
    read,
    spread,
    write,
)

# isort: split
import pytorch_lightning as pl
from rich import box
from rich.console import Console
from rich.table import Table

from embedtrain.cli.process.logs import set_up_logs
from embedtrain.model.encoder import Encoder
from embedtrain.model.folder.export import load_encoder
from embedtrain.model.pooling import POOLINGS, Pooling, named_pooling
from embedtrain.objective.losses.contrastive import InfoNCE
from embedtrain.objective.matryoshka import Objective
from embedtrain.objective.plan import Full
from embedtrain.training.steps.contrastive.batch_loss import BatchLoss

LEAST_SCORE = 4.0  # of a pair that trains
MEAN, UNTOUCHED = "mean", "mean, untrained"
VARIANTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    **{name: (name, {}) for name in POOLINGS},
    "last_layer, all positions": ("last_layer", {"source": "all_positions"}),
    "last_layer, last token": ("last_layer", {"source": "last_token"}),
    "multi_layer, last token": ("multi_layer", {"source": "last_token"}),
    "multi_layer, small start": ("multi_layer", {"latent_scale": 0.02, "table_scale": 0.02}),
}
BY_DEFAULT = tuple(name for name in VARIANTS if name != "multi_layer, small start")  # no option of conf/
TASKS = ("stsbenchmark", "sickr", "msrp", "trecqa", "banking77", "clinc150")


def trained(variant: str, rows: Sequence[Row], options: argparse.Namespace, seed: int) -> Encoder:
    """The backbone with this pooling after training."""
    name, settings = VARIANTS[variant]
    pl.seed_everything(seed, verbose=False)
    encoder = load_encoder(BACKBONE, pooling=partial(built, name, settings), max_length=MAX_LENGTH)
    plan = Full(num_layers=encoder.num_layers, width=encoder.width)
    loss = BatchLoss(Objective(InfoNCE()))
    fit(
        encoder,
        loss,
        plan,
        rows,
        batch_size=options.batch_size,
        lr=options.lr,
        seed=seed,
        steps=options.steps,
    )
    return encoder


def built(name: str, settings: Mapping[str, Any], *, hidden_size: int, num_layers: int) -> Pooling:
    """The pooling of a name with its settings."""
    return named_pooling(name, hidden_size=hidden_size, num_layers=num_layers, **settings)


def options_given() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--poolings", nargs="+", choices=VARIANTS, default=list(BY_DEFAULT), metavar="NAME")
    parser.add_argument("--tasks", nargs="+", choices=(*TASKS, "cranfield"), default=list(TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--limit", type=int, help="use only so many rows of each task")
    parser.add_argument(
        "--tiny", action="store_true", help="does it run: 3 poolings, 2 seeds, 2 steps, 8 rows a task"
    )
    given = arguments(parser, "pooling_study")
    if given.tiny:
        given.seeds, given.steps, given.batch_size, given.limit = 2, 2, 4, 8
        given.poolings = ["eos", "multi_layer"]
    given.poolings = [MEAN, *(name for name in given.poolings if name != MEAN)]
    return given


def main() -> None:
    """Train, score, print and write; the file is written after every training."""
    options = options_given()
    set_up_logs()
    rows = read(options.data_root / "sts/stsbenchmark/train.jsonl")
    rows = [
        {"query": row["sentence1"], "positive": row["sentence2"]}
        for row in rows
        if row["score"] >= LEAST_SCORE
    ]
    wanted = tasks(options.data_root, options.tasks, options.limit)
    runs = [(name, seed) for seed in range(options.seeds) for name in options.poolings]
    print(
        f"{len(rows)} training pairs, {options.steps} steps of {options.batch_size}, learning rate "
        f"{options.lr:g}, {len(runs)} trainings, "
        f"{len({text for task in wanted.values() for text in task.texts})} texts to score after each",
        flush=True,
    )
    untouched = measured(load_encoder(BACKBONE, max_length=MAX_LENGTH), wanted)
    print(f"{UNTOUCHED}: mean over tasks {fmean(untouched.values()):.2f}", flush=True)
    found: dict[str, list[Scores]] = {name: [] for name in options.poolings}
    begun = time.perf_counter()
    for number, (name, seed) in enumerate(runs, 1):
        scores = measured(trained(name, rows, options, seed), wanted)
        found[name].append(scores)
        spent = time.perf_counter() - begun
        print(
            f"{number}/{len(runs)} {name}, seed {seed}: mean over tasks {fmean(scores.values()):.2f}   "
            f"{spent:.0f} s, {spent / number * (len(runs) - number):.0f} s to go",
            flush=True,
        )
        write(options.out, options, {"untouched": untouched, "scores": found})
    show(found, untouched)
    tests = tested(found)
    for test, of_poolings in tests.items():
        print(f"\nagainst mean pooling, {test}")
        for name, result in of_poolings.items():
            print(f"  {name:26} {result}")
    kept = {test: {name: result._asdict() for name, result in of.items()} for test, of in tests.items()}
    write(options.out, options, {"untouched": untouched, "scores": found, "tests": kept})


def show(found: Mapping[str, Sequence[Scores]], untouched: Scores) -> None:
    """Mean and standard deviation over seeds of every task, and the difference to mean pooling."""
    table = Table(title="score x 100, mean ± standard deviation over seeds", box=box.SIMPLE_HEAD)
    table.add_column("pooling")
    for name in (*untouched, "mean of tasks", "to mean pooling"):
        table.add_column(name, justify="right")
    table.add_row(
        UNTOUCHED, *(f"{value:.2f}" for value in untouched.values()), f"{fmean(untouched.values()):.2f}"
    )
    for name, seeds in found.items():
        cells = [[scores[task] for scores in seeds] for task in untouched]
        means = [fmean(scores.values()) for scores in seeds]
        shown = [f"{fmean(cell):.2f} ± {spread(cell):.2f}" for cell in (*cells, means)]
        ahead = [
            fmean(mine.values()) - fmean(base.values()) for mine, base in zip(seeds, found[MEAN], strict=True)
        ]
        table.add_row(name, *shown, "" if name == MEAN else f"{fmean(ahead):+.2f} ± {spread(ahead):.2f}")
    Console(width=160).print(table)


def tested(found: Mapping[str, Sequence[Scores]]) -> dict[str, dict[str, Any]]:
    """Both paired tests of every pooling against the mean."""
    by_set, by_seed = {}, {}
    for name, seeds in found.items():
        if name == MEAN:
            continue
        ahead = [
            {task: mine[task] - base[task] for task in base}
            for mine, base in zip(seeds, found[MEAN], strict=True)
        ]
        by_set[name] = paired([fmean(part[task] for part in ahead) for task in ahead[0]])
        by_seed[name] = paired([value for part in ahead for value in part.values()])
    return {
        "one difference a data set (means over seeds)": by_set,
        "one difference a (data set, seed), not independent: a description, no test": by_seed,
    }


if __name__ == "__main__":
    main()
