"""Run folders with everything that a report shows, made by the writers that runs use, in a moment."""

import json
import math
import random

import numpy as np

from embedtrain.evaluation.per_item.stored import About as Measured
from embedtrain.evaluation.per_item.stored import ItemValues, items_file, write_items
from embedtrain.files.checkpoint_folder import StageFolder
from embedtrain.files.measured.cost import Speed, add_cost
from embedtrain.files.measured.health import BINS, Health, add_health
from embedtrain.files.measured.points import About, Point, write_map
from embedtrain.files.measured.verdict import Change, Cut, Finding, Verdict, write_verdict
from embedtrain.files.measured.weights import Moved, MovedCut, Weights, write_weights
from embedtrain.files.run_record import write_record
from embedtrain.files.scores import TaskFacts, add_tasks, read_scores, write_scores
from embedtrain.training.metrics import FileLogger
from embedtrain.types import Cell, Score

TYPES = ("Retrieval", "STS", "Classification", "Clustering", "PairClassification", "Reranking")
LAYERS, DIMS, DTYPES = (2, 4, 6), (32, 64, 128, 256, 384), ("float32", "int8")
CELLS = [Cell(layer, dim, dtype) for dtype in DTYPES for layer in LAYERS for dim in DIMS]
TRAINED = [[2, 64], [4, 128], [6, 384]]


def write_report_run(folder, seed=0, tasks=8, gain=0.06, steps=200, names=None, config=None, cells=CELLS):
    """A finished run: scores before and after, curves, health, cost, weights, verdict, contract."""
    draw, name = random.Random(seed), folder.name
    names = names or [f"{TYPES[number % len(TYPES)]}Task{number}" for number in range(tasks)]
    _write_settings(folder, seed, steps, config or {})
    kinds = {task: TYPES[number % len(TYPES)] for number, task in enumerate(names)}
    facts = {task: TaskFacts(kind, "x", "local", "r", "default", False) for task, kind in kinds.items()}
    add_tasks(folder / "tasks.json", facts)
    scores = [
        Score(name, step, task, "test", *cell[:2], "main", _quality(cell, number, added, draw), cell.dtype)
        for step, added in ((0, 0.0), (steps, gain))
        for number, task in enumerate(names)
        for cell in cells
    ]
    write_scores(folder / "scores.jsonl", [*_funnel(name, steps, names[0]), *scores])
    _write_curves(folder, draw, steps)
    whole = [cell for cell in cells if cell.dtype == "float32"]
    add_health(
        folder,
        [_health(name, step, task, c, draw) for step in (0, steps) for task in names[:3] for c in whole],
    )
    _write_speeds(folder)
    _write_map(folder, names[0], draw, steps)
    _write_outcome(folder, names, draw, gain, steps)
    return folder


def write_items_of(folder, items, seed=0):
    """What the scores of the whole model are made of, about the scores; correlations of the STS tasks."""
    whole = max((cell for cell in CELLS if cell.dtype == "float32"), key=lambda cell: cell.layer * cell.dim)
    for number, score in enumerate(read_scores(folder / "scores.jsonl")):
        if score.cell != whole:
            continue
        hard = np.random.default_rng(sum(score.task.encode())).normal(0, 0.25, items)  # the same for all runs
        noise = np.random.default_rng([seed, number]).normal(0, 0.1, items)
        values = score.value + hard + noise
        kind, gold = ("spearman", hard) if score.task.startswith("STS") else ("mean", np.zeros(items))
        about = Measured(*score[:4], *whole, "w", "d", "2", ("default",), {"main": kind})
        kept = ItemValues(about, np.arange(items), np.zeros(items, np.int64), gold, {"main": values[:, None]})
        path = items_file(folder, score.task, step=score.step, cell=str(whole), split=score.split)
        write_items(path, kept)


def _funnel(name, step, task):
    """A search of 5,000 documents by 64 dims of two layers, the first 100 by the whole model."""
    place, searched = (name, step, task, "test", 6, 384), 5000 * 64 + 100 * 384
    found = {"main": 0.58, "search_multiply_adds": searched, "search_share": searched / (5000 * 384)}
    return [Score(*place, metric, value, "funnel(L2_D64>100>L6_D384)") for metric, value in found.items()]


def _quality(cell, number, gain, draw):
    """About what a cell of a real model has on a task."""
    value = 0.25 + 0.05 * cell.layer + 0.045 * math.log2(cell.dim / 16) + gain
    loss = 0.02 * (cell.dtype != "float32") + 0.03 * (number % 5)
    return round(value - loss + draw.gauss(0, 0.006), 6)


def _write_settings(folder, seed, steps, config):
    optim = {"_target_": "embedtrain.training.optim.AdamW", "lr": round(1e-4 * (1 + seed), 6), "warmup": 0.05}
    settings = {
        "name": folder.name,
        "seed": seed,
        "optim": optim,
        "plan": {"pairs": TRAINED},
        "trainer": {"max_steps": steps, "precision": "bf16-mixed"},
        **config,
    }
    given = {"name": folder.name, "optim": {"lr": optim["lr"]}}
    write_record(folder / "config.yaml", settings, given, {"training rows of pairs": "c0ffee"}, world_size=1)
    (folder / "model").mkdir(parents=True)
    contract = {"pooling": "mean", "prompts": {"query": "find: "}, "num_layers": 6, "trained": TRAINED}
    (folder / "model" / "embedtrain.json").write_text(json.dumps(contract), "utf-8")
    StageFolder(folder).finish(folder / "checkpoints" / f"step_{steps:09}.ckpt", steps)


def _write_curves(folder, draw, steps):
    """metrics.jsonl, a line every tenth step."""
    log = FileLogger(folder)
    for step in range(9, steps, 10):
        fall = math.exp(-step / 60)
        values = {
            "train/loss": 9 * fall + 6,
            "train/lr": 1e-4 * min(1, step / 20) * (1 - step / steps),
            "train/grad_norm": 20 * fall + draw.random(),
            "train/seconds_per_step": 0.4 + 0.05 * draw.random(),
            "train/pairs_per_second": 140 + 10 * draw.random(),
        }
        values |= {
            f"train/loss_L{one}_D{two}": 5 / one + 3 * fall + 0.1 * draw.random() for one, two in TRAINED
        }
        for data in ("faq/train", "web"):
            facts = {
                "loss": 3 + 2 * fall,
                "accuracy": 0.8 - 0.4 * fall,
                "removed_margin": 0.1 * draw.random(),
            }
            values |= {f"train/{data}/{name}": value for name, value in facts.items()}
        log.log_metrics(values, step)
        if step % 50 == 49:
            scores = {f"val/ndcg_at_10_L{one}_D{two}": 0.3 + 0.05 * one - 0.2 * fall for one, two in TRAINED}
            log.log_metrics({**scores, "val/mean": sum(scores.values()) / 3}, step)


def _health(run, step, task, cell, draw):
    """A line of health.jsonl."""
    layer, dim = cell[:2]

    def bell(middle, height):
        centres = [-1 + (2 * number + 1) / BINS for number in range(BINS)]
        return tuple(int(height * math.exp(-((at - middle) ** 2) / 0.03)) for at in centres)

    uneven = -1.5 - 0.2 * math.log2(dim / 16) + 0.05 * draw.random()
    lengths = (uneven, 0.9 * dim**0.8, 2.5 - 0.2 * layer, min(1.0, 0.4 + 0.1 * layer), 0.2)
    return Health(
        *(run, step, task, layer, dim, "w", 256, *lengths),
        negative=bell(0.2, 900),
        pairs=128,
        alignment=0.9 - 0.05 * layer,
        positive=bell(0.6, 90),
    )


def _write_speeds(folder):
    speeds = [
        Speed(folder.name, layer, texts, 32, 3, 20, ms * layer, 0.9 * ms * layer, 1.5 * ms * layer, "cpu", 2)
        for layer in LAYERS
        for texts, ms in ((1, 2.1), (32, 0.4))
    ]
    add_cost(folder, speeds)


def _write_map(folder, task, draw, steps):
    """40 queries, each with its document and one more; every fourth fails."""
    points = []
    for number in range(40):
        failed, own = number % 4 == 0, 40 + 2 * number
        found = (own + 1,) if failed else (own, own + 1)
        place = draw.gauss(0, 1), draw.gauss(0, 1)
        points.append(
            Point("query", f"question {number}", *place, 25 if failed else 1, failed, found, (own,))
        )
    points += [
        Point("document", f"{what} {number}", draw.gauss(0, 1), draw.gauss(0, 1))
        for number in range(40)
        for what in ("answer", "noise")
    ]
    write_map(folder, About(folder.name, steps, task, 6, 384, 10, 5000), points)


def _write_outcome(folder, names, draw, gain, steps):
    """weights.json and verdict.json."""
    blocks = ["embeddings", *map(str, range(1, 7))]
    moved = tuple(Moved(block, 9000, 0.01 + 0.004 * n, 0.02, 0.99) for n, block in enumerate(blocks))
    cuts = tuple(MovedCut(layer, dim, 0.8, 0.4) for layer, dim in TRAINED)
    write_weights(folder, Weights(folder.name, steps, moved, cuts, 256))
    changes = tuple(_change(task, gain + draw.gauss(0, 0.03)) for task in names)
    cut = Cut(4, 128, "float32", "the smallest that keeps 95 %", 55.0, 58.0, 0.948, 512, 1.6, 8.4)
    found = Finding(
        "forgetting", "The loss fell while STSTask1 fell.", "embedtrain-train name=x optim.lr=5e-05"
    )
    lines = ("Weights: 98 % of the numbers changed.",)
    write_verdict(folder, Verdict(folder.name, steps, lines, changes, cut, (found,), 0.98))


def _change(task, difference):
    """A task of the verdict."""
    low, high = difference - 0.03, difference + 0.03
    verdict = "better" if low > 0 else "worse" if high < 0 else "not distinguishable"
    return Change(task, "test", "main", 6, 384, "float32", 0.6, 0.6 + difference, low, high, 0.01, verdict)
