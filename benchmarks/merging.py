"""Merging: three runs on three data sets, each way to merge them, and their joint training, on one grid.

    python benchmarks/merging.py --data-root DIR [--work DIR] [--steps 30] [--tiny]

all-MiniLM-L6-v2 is trained three times, at (2, 64), (4, 192) and (6, 384): on definitions and headwords of
GCIDE, on STS-B (DIR/sts/stsbenchmark), and on texts of one intent (DIR/classification/banking77). The joint
training reads all three in turn, for as many steps as they have together. Then `embedtrain-merge` merges the
three by each method, at its defaults.

Scored: nDCG@10 of the reverse dictionary and of held-out texts among those of their intents, Spearman of 600
pairs of STS-B's test set; each is the mean of the 9 cells of layers 2, 4, 6 and dims 64, 192, 384. What is
forgotten: nDCG@10 among 600 documents of Cranfield (DIR/retrieval/cranfield), which none trained on.
Intervals: the paired bootstrap of the means of whole grids, as in `embedtrain-merge`; of one seed, so they
say nothing of other seeds.

Every finished run is kept in --work, so the command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from in_process import BACKBONE, read, write  # sets threads up
from pairs import write_rows
from tables import show

# isort: split
import torch

import embedtrain
from embedtrain.data.dictionary import prepare
from embedtrain.evaluation.comparing.grids import compare_grids
from embedtrain.evaluation.comparing.runs import Run, at_step, read_run
from embedtrain.evaluation.comparing.statistics import Settings
from embedtrain.files.atomic import write_text
from embedtrain.training.trainer import auto_precision

PLAN = [[2, 64], [4, 192], [6, 384]]
DATA = ("dictionary", "sts", "intents")
TASKS = {"dictionary": "reverse-dictionary", "sts": "stsbenchmark", "intents": "intents"}
FORGOTTEN = "cranfield"
PROBED = ("greedy", "cocktail", "self_positioning")
METHODS = ("average", "task_arithmetic", "ties", "dare", "dare_ties", *PROBED)
TERM = "embedtrain.objective.losses.terms.Term"
INFONCE = "embedtrain.objective.losses.contrastive.InfoNCE"
COSENT = "embedtrain.objective.losses.scored.CoSENT"
FEW = 600  # pairs of STS-B's test, documents of Cranfield: a model is measured 14 times
RESAMPLING = Settings(resamples=1000)
Row = dict[str, Any]


def data(given: argparse.Namespace) -> Path:
    """Rows to train, rows to probe and four tasks in one folder, written once."""
    folder = given.work / "data"
    if (folder / "done").exists():
        return folder
    sizes = (20, 20, 80, 100) if given.tiny else (200, 100, 800, 6000)
    names = ("test_words", "validation_words", "corpus_words", "train_words")
    prepare(folder / "prepared", **dict(zip(names, sizes, strict=True)))
    task = "retrieval/reverse-dictionary"
    for part in ("corpus", "queries", "qrels"):
        write_rows(folder / f"{task}/{part}.jsonl", read(folder / f"prepared/{task}/{part}.jsonl"))
    write_rows(folder / "dictionary.jsonl", read(folder / "prepared/train.jsonl"))
    write_rows(folder / "dictionary_probe.jsonl", read(folder / "prepared/validation.jsonl"))
    few, sts = (60 if given.tiny else FEW), given.data_root / "sts/stsbenchmark"
    for name, to in (("train", "sts"), ("dev", "sts_probe"), ("test", "sts/stsbenchmark/test")):
        write_rows(folder / f"{to}.jsonl", read(sts / f"{name}.jsonl")[: None if name == "train" else few])
    _intents(given, folder)
    cranfield, kept = given.data_root / "retrieval/cranfield", few
    corpus = read(cranfield / "corpus.jsonl")[:kept]
    there = {row["id"] for row in corpus if row["text"]}
    judged = [row for row in read(cranfield / "qrels.jsonl") if row["corpus_id"] in there]
    write_rows(folder / "retrieval/cranfield/corpus.jsonl", [row for row in corpus if row["text"]])
    write_rows(folder / "retrieval/cranfield/queries.jsonl", read(cranfield / "queries.jsonl"))
    write_rows(folder / "retrieval/cranfield/qrels.jsonl", judged)
    write_text(folder / "done", "")
    return folder


def _intents(given: argparse.Namespace, folder: Path) -> None:
    """Of each intent: 20 texts to train, 4 to probe, 4 to ask, 8 to be found."""
    texts: dict[str, list[str]] = {}
    for row in read(given.data_root / "classification/banking77/train.jsonl"):
        texts.setdefault(row["label"], []).append(row["text"])
    named = sorted(texts.items())[: 6 if given.tiny else None]
    trained, probed, asked, searched = (
        [(label, text) for label, every in named for text in every[first:last]]
        for first, last in ((0, 20), (20, 24), (24, 28), (28, 36))
    )
    for name, part in (("intents", trained), ("intents_probe", probed)):
        others = [[text for same, text in part if same == label] for label, _ in part]
        rows = [
            {"query": own, "positives": [text for text in texts if text != own]}
            for (_, own), texts in zip(part, others, strict=True)
        ]
        write_rows(folder / f"{name}.jsonl", rows)
    task = folder / "retrieval/intents"
    write_rows(task / "corpus.jsonl", [{"id": f"d{n}", "text": text} for n, (_, text) in enumerate(searched)])
    write_rows(task / "queries.jsonl", [{"id": f"q{n}", "text": text} for n, (_, text) in enumerate(asked)])
    every = itertools.product(enumerate(asked), enumerate(searched))
    judged = [
        {"query_id": f"q{n}", "corpus_id": f"d{m}", "score": 1}
        for (n, one), (m, two) in every
        if one[0] == two[0]
    ]
    write_rows(task / "qrels.jsonl", judged)


def measuring(given: argparse.Namespace, *, before: bool) -> Row:
    """What is measured of a run."""
    tasks = [*TASKS.values(), FORGOTTEN]
    return {"tasks": tasks, "data_root": str(given.work / "data"), "before": before}


def trained(given: argparse.Namespace, name: str) -> Path:
    """A run on one data set, or with the name "joint" on all."""
    folder = given.work / "runs" / name
    if (folder / "finished.json").exists():
        return folder
    files = {one: str(given.work / "data" / f"{one}.jsonl") for one in DATA}
    terms = [
        {"_target_": TERM, "loss": {"_target_": COSENT if one == "sts" else INFONCE}, "tasks": [one]}
        for one in DATA
    ]
    joint: Row = {
        "loss": {"option": "weighted_sum", "terms": terms},
        "data": {
            "train": [{"source": file, "task": one} for one, file in files.items()],
            "sampling": "weights",
        },
    }
    alone: Row = {"loss": "cosent" if name == "sts" else "infonce", "data": {"train": files.get(name)}}
    chosen = joint if name == "joint" else alone
    embedtrain.train(
        name=name,
        output_root=str(given.work / "runs"),
        backbone={"path": BACKBONE, "max_length": given.max_length},
        plan={"pairs": PLAN},
        loss=chosen["loss"],
        data={**chosen["data"], "batch_size": given.batch_size},
        optim={"lr": given.lr},
        trainer={
            "max_steps": given.steps * (len(DATA) if name == "joint" else 1),
            "precision": given.precision,
        },
        evaluation=measuring(given, before=name == DATA[0]),
    )
    return folder


def merged(given: argparse.Namespace, name: str) -> Path:
    """The three runs by a method; "average + base" keeps 0.3 of what they began with."""
    folder = given.work / "runs" / name.replace(" + ", "_")
    if not (folder / "finished.json").exists():
        method, _, base = name.partition(" + ")
        more: Row = {"base_share": 0.3} if base else {}
        if method in PROBED:
            more["probe"] = [str(given.work / "data" / f"{one}_probe.jsonl") for one in DATA]
        embedtrain.merge(
            [given.work / "runs" / one for one in DATA],
            name=folder.name,
            output_root=str(given.work / "runs"),
            method=method,
            evaluation=measuring(given, before=False),
            **more,
        )
    return folder


def rows_of(runs: Mapping[str, Run]) -> list[Row]:
    """A row a model: each task, what they have in common, and that against the joint training."""
    own, cells = list(TASKS.values()), sorted(runs["joint"].cells)

    def against(first: Run, second: Run, tasks: list[str]) -> str:
        found = compare_grids(first.keep(tasks), second.keep(tasks), cells, RESAMPLING)
        low, high = 100 * found.low, 100 * found.high
        return f"{100 * found.difference:+.2f} ({low:+.2f} to {high:+.2f})"

    rows = []
    for name, run in runs.items():
        means = {
            task: 100 * sum(scores[cell].value for cell in cells) / len(cells)
            for (task, _), scores in run.scores.items()
        }
        row: Row = {"model": name} | {short: round(means[task], 2) for short, task in TASKS.items()}
        row["mean of the three"] = round(sum(means[task] for task in own) / len(own), 2)
        row["- joint (95 %)"] = "" if name == "joint" else against(runs["joint"], run, own)
        row[FORGOTTEN] = round(means[FORGOTTEN], 2)
        row["- untouched (95 %)"] = (
            "" if name == "untouched" else against(runs["untouched"], run, [FORGOTTEN])
        )
        rows.append(row)
    return rows


def main() -> None:
    """Run what is not done yet, and print the table."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--data-root", type=Path, default=os.environ.get("EMBEDTRAIN_DATA"))
    parser.add_argument("--work", type=Path, default=Path("runs/merging"), help="folder of data and runs")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument(
        "--steps", type=int, default=30, help="of each run; the joint one has three times as many"
    )
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=32)
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--precision", default="auto", help="of training; scores are float32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--tiny", action="store_true", help="shows that it runs: nothing else")
    parser.add_argument("--out", type=Path, help="default: results/merging.json; with --tiny none")
    given = parser.parse_args()
    if given.data_root is None:
        parser.error("give --data-root DIR, or set EMBEDTRAIN_DATA")
    torch.set_num_threads(given.threads)
    if given.precision == "auto":
        given.precision = auto_precision("cpu")
    given.work, given.data_root = given.work.resolve(), Path(given.data_root)
    if given.tiny:
        given.steps, given.batch_size, given.max_length = 2, 8, 16
    elif given.out is None:
        given.out = Path(__file__).parent / "results" / "merging.json"
    data(given)
    folders = {name: trained(given, name) for name in (*DATA, "joint")}
    folders |= {name: merged(given, name) for name in (*given.methods, "average + base")}
    runs = {"untouched": at_step(folders[DATA[0]], 0)} | {
        name: read_run(str(path)) for name, path in folders.items()
    }
    found = {"scores": rows_of(runs), "chosen": _chosen(folders)}
    show(found)
    kept = {name: value for name, value in vars(given).items() if name != "work"}
    write(given.out, argparse.Namespace(**kept), found)


def _chosen(folders: Mapping[str, Path]) -> list[Row]:
    """What methods that choose something chose."""
    merges = {
        name: json.loads((path / "merge.json").read_text("utf-8"))
        for name, path in folders.items()
        if (path / "merge.json").exists()
    }
    return [{"model": name, "chose": "; ".join(one["chosen"])} for name, one in merges.items()]


if __name__ == "__main__":
    main()
