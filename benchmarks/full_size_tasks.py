"""Small tasks on local data that a study can afford after every training: each text encoded once."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from in_process import read  # first: it sets threads up before torch is imported

# isort: split
import torch
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, ndcg_score
from torch import Tensor

from embedtrain.model.encoder import Encoder
from embedtrain.types import SubModel

Vectors = Callable[[Sequence[str]], Tensor]  # texts to unit rows
Scores = dict[str, float]  # task -> score x 100
PAIRS = 300  # of msrp
QUESTIONS = 20  # of trecqa
EACH = 2  # texts of an intent


class Task(NamedTuple):
    """What is encoded, and what is made of it."""

    texts: Sequence[str]
    score: Callable[[Vectors], float]


def pair_task(path: Path, label: str, limit: int | None) -> Task:
    """Scored pairs by Spearman, labelled pairs by average precision."""
    rows = read(path)[:limit]
    left, right = [row["sentence1"] for row in rows], [row["sentence2"] for row in rows]
    labels = [row[label] for row in rows]

    def score(vectors: Vectors) -> float:
        cosine = (vectors(left) * vectors(right)).sum(1).numpy()
        return float(
            spearmanr(cosine, labels).statistic
            if label == "score"
            else average_precision_score(labels, cosine)
        )

    return Task([*left, *right], score)


def answers_task(path: Path, limit: int | None) -> Task:
    """Questions that each rank their own sentences."""
    rows = [row for row in read(path) if row["positives"] and row["negatives"]][:limit]

    def score(vectors: Vectors) -> float:
        found = []
        for row in rows:
            labels = [1] * len(row["positives"]) + [0] * len(row["negatives"])
            cosine = vectors(row["positives"] + row["negatives"]) @ vectors([row["query"]])[0]
            found.append(average_precision_score(labels, cosine.numpy()))
        return fmean(found)

    return Task(
        [text for row in rows for text in (row["query"], *row["positives"], *row["negatives"])], score
    )


def intents_task(path: Path, each: int, limit: int | None) -> Task:
    """Texts whose nearest neighbour should have the same intent."""
    by_intent: dict[Any, list[str]] = {}
    for row in read(path):
        by_intent.setdefault(row["label"], []).append(row["text"])
    draw = random.Random(0)
    chosen = [
        (text, name) for name in sorted(by_intent, key=str) for text in draw.sample(by_intent[name], each)
    ]
    texts, names = [text for text, _ in chosen[:limit]], [name for _, name in chosen[:limit]]

    def score(vectors: Vectors) -> float:
        unit = vectors(texts)
        nearest = (unit @ unit.T).fill_diagonal_(-2).argmax(1)
        return fmean(float(names[row] == names[other]) for row, other in enumerate(nearest.tolist()))

    return Task(texts, score)


def search_task(folder: Path, limit: int | None) -> Task:
    """Queries that rank a corpus."""
    corpus, queries = read(folder / "corpus.jsonl")[:limit], read(folder / "queries.jsonl")[:limit]
    column = {row["id"]: place for place, row in enumerate(corpus)}
    line = {row["id"]: place for place, row in enumerate(queries)}
    gains = torch.zeros(len(queries), len(corpus))
    for row in read(folder / "qrels.jsonl"):
        if row["query_id"] in line and row["corpus_id"] in column:
            gains[line[row["query_id"]], column[row["corpus_id"]]] = float(row["score"])
    docs, texts = [row["text"] or row["title"] or "." for row in corpus], [row["text"] for row in queries]
    return ranking_task(texts, docs, gains)


def ranking_task(texts: Sequence[str], docs: Sequence[str], gains: Tensor) -> Task:
    """Queries that rank documents of these gains (queries, documents): nDCG@10."""
    asked = gains.any(1)

    def score(vectors: Vectors) -> float:
        found = vectors(texts) @ vectors(docs).T
        return float(ndcg_score(gains[asked].numpy(), found[asked].numpy(), k=10))

    return Task([*docs, *texts], score)


def tasks(root: Path, names: Sequence[str], limit: int | None) -> dict[str, Task]:
    """The tasks by name."""

    def at_most(count: int) -> int:
        return count if limit is None else min(count, limit)

    makers: dict[str, Callable[[], Task]] = {
        "stsbenchmark": lambda: pair_task(root / "sts/stsbenchmark/test.jsonl", "score", limit),
        "sickr": lambda: pair_task(root / "sts/sickr/dev.jsonl", "score", limit),
        "msrp": lambda: pair_task(root / "pairs/msrp/dev.jsonl", "label", at_most(PAIRS)),
        "trecqa": lambda: answers_task(root / "retrieval/trecqa/dev.jsonl", at_most(QUESTIONS)),
        "banking77": lambda: intents_task(root / "classification/banking77/train.jsonl", EACH, limit),
        "clinc150": lambda: intents_task(root / "classification/clinc150/val.jsonl", EACH, limit),
        "cranfield": lambda: search_task(root / "retrieval/cranfield", limit),
    }
    return {name: makers[name]() for name in names}


def measured(encoder: Encoder, wanted: Mapping[str, Task]) -> Scores:
    """Every task at the full size."""
    full = SubModel(encoder.num_layers, encoder.width)
    return {name: cells[full] for name, cells in measured_cells(encoder, wanted, [full]).items()}


def measured_cells(
    encoder: Encoder, wanted: Mapping[str, Task], subs: Sequence[SubModel], *, bfloat16: bool = False
) -> dict[str, dict[SubModel, float]]:
    """Every task at some cells, each distinct text encoded once, maybe with products in bfloat16."""
    place: dict[str, int] = {}
    for task in wanted.values():
        for text in task.texts:
            place.setdefault(text, len(place))
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        every = encoder.encode(list(place), [sub.layer for sub in subs])
    found: dict[str, dict[SubModel, float]] = {name: {} for name in wanted}
    for sub in subs:
        values = every.at(sub)

        def vectors(texts: Sequence[str], values: Tensor = values) -> Tensor:
            return values[[place[text] for text in texts]]

        for name, task in wanted.items():
            found[name][sub] = 100 * task.score(vectors)
    return found
