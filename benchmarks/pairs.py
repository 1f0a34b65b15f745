"""Documents without labels: do pairs made of them train a better model than the untouched one?

    python benchmarks/pairs.py --data-root DIR --wiki WHEEL_OR_JSON [--work DIR] [--seeds 2] [--tiny]

Two domains, each searched by queries that no training saw:

    cranfield  the 1,400 abstracts of DIR/retrieval/cranfield are the documents; its queries are not read
    wiki       leads of Wikipedia articles (see pretraining.py), each without its own title; 1,500 others are
               searched by their titles

`embedtrain-pairs` makes rows of the documents and all-MiniLM-L6-v2 trains on them, a short run at six cuts.
On a third of the queries (of `wiki`: 500 of the articles), with one seed, by the mean of the six cuts, the
makers are chosen first, then the learning rate. Test: nDCG@10 of the other queries, the chosen setting with
each seed, against the untouched model with the same longest text. Intervals and p: `embedtrain-compare`'s,
over queries, seeds averaged; p corrected by Holm over the rows of a domain.

The title is taken off the beginning of each abstract of Cranfield.

Every finished run and score is kept in --work, so the command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from in_process import BACKBONE, read, spread, write  # sets threads up
from ndcg import Values, ndcg, paired
from pretraining import CUTS, leads, without_title
from tables import show

# isort: split
import torch

import embedtrain
from embedtrain.evaluation.comparing.families import correct
from embedtrain.files.atomic import write_text
from embedtrain.model.folder.export import load_encoder
from embedtrain.training.trainer import auto_precision
from embedtrain.types import SubModel

SUBS = [SubModel(*cut) for cut in CUTS]
MAKERS = {
    "title": ["title"],
    "cloze": ["inverse_cloze"],
    "mixed": ["title", "inverse_cloze", "neighbours"],
}
RATES = (5e-5, 1e-5)  # makers are compared at the first
DOMAINS = ("cranfield", "wiki")
Row = dict[str, Any]
Setting = tuple[str, float]  # a key of MAKERS, learning rate


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Rows as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def cranfield(given: argparse.Namespace) -> None:
    """Documents, and two tasks over all of them: a third of the queries to choose by, the others to test."""
    source, folder = Path(given.data_root) / "retrieval/cranfield", given.work / "cranfield"
    corpus, qrels = read(source / "corpus.jsonl"), read(source / "qrels.jsonl")
    bodies = ((row, row["text"].removeprefix(row["title"]).strip()) for row in corpus)
    texts = [{"title": row["title"], "text": body} for row, body in bodies if body]
    write_rows(folder / "documents.jsonl", texts[: 60 if given.tiny else None])
    queries = read(source / "queries.jsonl")[: 12 if given.tiny else None]
    for name, part in (("dev", queries[::3]), ("test", [*queries[1::3], *queries[2::3]])):
        asked = {row["id"] for row in part}
        judged = [row for row in qrels if row["query_id"] in asked and float(row["score"]) > 0]
        kept = {row["corpus_id"] for row in judged}
        searched = [row for n, row in enumerate(corpus) if not given.tiny or row["id"] in kept or n < 40]
        _task(folder / name, searched, part, judged)


def wiki(given: argparse.Namespace) -> None:
    """Documents, and two tasks: titles of articles that are no documents, searched among their leads."""
    articles, folder = leads(given.wiki), given.work / "wiki"
    order = np.random.default_rng(0).permutation(len(articles)).tolist()
    sizes = (30, 40, 80) if given.tiny else (500, 1500, len(articles))
    dev, test, rest = np.split(np.array(order), np.cumsum(sizes[:2]))
    documents = [
        {"title": articles[n]["title"], "text": without_title(articles[n])} for n in rest[: sizes[2]]
    ]
    write_rows(folder / "documents.jsonl", documents)
    for name, part in (("dev", dev), ("test", test)):
        searched = [{"id": str(n), "text": without_title(articles[n])} for n in part]
        asked = [{"id": str(n), "text": articles[n]["title"]} for n in part]
        judged = [{"query_id": str(n), "corpus_id": str(n), "score": 1} for n in part]
        _task(folder / name, searched, asked, judged)


def _task(folder: Path, corpus: Sequence[Row], queries: Sequence[Row], qrels: Sequence[Row]) -> None:
    for name, rows in (("corpus", corpus), ("queries", queries), ("qrels", qrels)):
        write_rows(folder / f"{name}.jsonl", rows)


def trained(given: argparse.Namespace, domain: str, setting: Setting, seed: int) -> Path:
    """The model of a run on pairs of the documents."""
    folder, (makers, lr) = given.work / domain, setting
    files = []
    for maker in MAKERS[makers]:
        files.append(folder / f"{maker}.jsonl")
        if not files[-1].exists():
            embedtrain.pairs(folder / "documents.jsonl", files[-1], maker=maker)
    name = f"{makers}_{lr:g}_{seed}"
    if not (folder / "runs" / name / "finished.json").exists():
        embedtrain.train(
            name=name,
            output_root=str(folder / "runs"),
            seed=seed,
            backbone={"path": BACKBONE, "max_length": given.max_length},
            plan={"pairs": CUTS},
            data={"train": [str(file) for file in files], "batch_size": given.batch_size},
            optim={"lr": lr},
            trainer={"max_steps": given.steps, "precision": given.precision},
            evaluation={"tasks": []},
        )
    return folder / "runs" / name / "model"


def scores(given: argparse.Namespace, domain: str, part: str, setting: Setting | None, seed: int) -> Values:
    """nDCG@10 x 100, (cuts, queries), of a trained model, or with None of the untouched one."""
    name = "untouched" if setting is None else f"{setting[0]}_{setting[1]:g}_{seed}"
    kept = given.work / domain / "scores" / f"{part}_{name}.json"
    if not kept.exists():
        model = BACKBONE if setting is None else trained(given, domain, setting, seed)
        longest = given.longest_dev if part == "dev" else given.longest
        found = ndcg(load_encoder(model, max_length=longest), given.work / domain / part, SUBS)
        kept.parent.mkdir(exist_ok=True)
        write_text(kept, json.dumps([found[sub].tolist() for sub in SUBS]))
    return np.array(json.loads(kept.read_text("utf-8")))


def searched(given: argparse.Namespace, domain: str) -> tuple[list[Row], Setting]:
    """What each setting reaches on the queries to choose by, and the best."""
    means: dict[Setting, float] = {}

    def best(settings: Sequence[Setting]) -> Setting:
        means.update({each: float(scores(given, domain, "dev", each, 0).mean()) for each in settings})
        return max(means, key=lambda setting: means[setting])

    makers, _ = best([(makers, RATES[0]) for makers in MAKERS])
    chosen = best([(makers, lr) for lr in RATES])
    plain = float(scores(given, domain, "dev", None, 0).mean())
    rows = [{"domain": domain, "makers": "untouched", "lr": "", "dev ndcg@10": round(plain, 2)}]
    rows += [
        {"domain": domain, "makers": makers, "lr": f"{lr:g}", "dev ndcg@10": round(mean, 2)}
        for (makers, lr), mean in means.items()
    ]
    return rows, chosen


def tested(given: argparse.Namespace, domain: str, setting: Setting) -> list[Row]:
    """A row a cut, and one for their mean."""
    plain = scores(given, domain, "test", None, 0)  # (cuts, queries)
    own = np.stack([scores(given, domain, "test", setting, seed) for seed in range(given.seeds)])
    names = [f"{cut.layer} x {cut.dim}" for cut in SUBS] + ["mean"]
    pairs = [(plain[n], own[:, n]) for n in range(len(SUBS))] + [(plain.mean(0), own.mean(1))]
    found = [paired(before, after.mean(0)) for before, after in pairs]
    corrected = correct([one.p for one in found], "holm")
    return [
        {
            "domain": domain,
            "cut": name,
            "untouched": round(one.first, 2),
            "trained": round(one.second, 2),
            "seeds": round(spread([fmean(each) for each in after]), 2),
            "difference": round(one.difference, 2),
            "95 %": f"{one.low:+.2f} to {one.high:+.2f}",
            "p": f"{p:.2g}",
        }
        for name, (_, after), one, p in zip(names, pairs, found, corrected, strict=True)
    ]


def main() -> None:
    """Run what is not done yet, and print the tables."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--data-root", type=Path, default=os.environ.get("EMBEDTRAIN_DATA"))
    parser.add_argument("--wiki", type=Path, help="the wheel, or summaries_en-us.json of it")
    parser.add_argument("--work", type=Path, default=Path("runs/pairs"), help="folder of data and runs")
    parser.add_argument("--domains", nargs="+", default=list(DOMAINS), choices=DOMAINS)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=64, help="of training")
    parser.add_argument(
        "--longest-dev", type=int, default=64, help="tokens of a text while settings are chosen"
    )
    parser.add_argument("--longest", type=int, default=128, help="tokens of a text in the test")
    parser.add_argument("--precision", default="auto", help="of training; scores are float32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--tiny", action="store_true", help="shows that it runs: nothing else")
    parser.add_argument("--out", type=Path, help="default: results/pairs.json; with --tiny none")
    given = parser.parse_args()
    if ("cranfield" in given.domains and given.data_root is None) or (
        "wiki" in given.domains and given.wiki is None
    ):
        parser.error("cranfield needs --data-root DIR, wiki needs --wiki WHEEL")
    torch.set_num_threads(given.threads)
    if given.precision == "auto":
        given.precision = auto_precision("cpu")
    given.work = given.work.resolve()
    if given.tiny:
        given.seeds, given.steps, given.batch_size, given.longest = 1, 2, 8, 32
    elif given.out is None:
        given.out = Path(__file__).parent / "results" / "pairs.json"
    found: dict[str, list[Row]] = {"search": [], "test": []}
    for domain in given.domains:
        if not (given.work / domain / "test/qrels.jsonl").exists():
            {"cranfield": cranfield, "wiki": wiki}[domain](given)
        rows, best = searched(given, domain)
        found["search"] += rows
        found["test"] += tested(given, domain, best)
    show(found)
    kept = {name: value for name, value in vars(given).items() if name not in ("wiki", "work")}
    write(given.out, argparse.Namespace(**kept), found)


if __name__ == "__main__":
    main()
