"""nDCG@10 of each query of a local retrieval task at some cuts, from one forward for all layers.

mteb scores every (layer, dim) of a grid; where six cuts of many models are asked, this is several times as
fast. tests/test_studies.py holds it to mteb's numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from embedtrain.evaluation.comparing.statistics import Comparison, compare
from embedtrain.evaluation.per_item.weighted import Sample
from embedtrain.files.rows import read_rows
from embedtrain.model.encoder import Encoder
from embedtrain.types import SubModel

DEPTH = 10
Values = NDArray[np.float64]


def ndcg(encoder: Encoder, task: Path, cuts: Sequence[SubModel]) -> dict[SubModel, Values]:
    """nDCG@10 x 100 of each query, (Q,) in the order of qrels.jsonl.

    Args:
        encoder: what embeds, in its own precision.
        task: folder of corpus.jsonl, queries.jsonl and qrels.jsonl.
        cuts: what is measured.
    """
    names = {part: _texts(task / f"{part}.jsonl") for part in ("queries", "corpus")}
    grades: dict[str, dict[str, float]] = {}
    for _, row in read_rows(task / "qrels.jsonl"):
        if float(row["score"]) > 0:
            grades.setdefault(row["query_id"], {})[row["corpus_id"]] = float(row["score"])
    layers = sorted({cut.layer for cut in cuts})
    asked, documents = list(grades), list(names["corpus"])
    queries = encoder.encode([names["queries"][name] for name in asked], layers, "query")
    docs = encoder.encode(list(names["corpus"].values()), layers, "document")
    found = {}
    for cut in cuts:
        scores = queries.at(cut) @ docs.at(cut).T  # (Q, C)
        nearest = torch.topk(scores, min(DEPTH, len(documents))).indices.tolist()
        pairs = zip(asked, nearest, strict=True)
        found[cut] = np.array([_gain(grades[name], [documents[n] for n in best]) for name, best in pairs])
    return found


def paired(first: Values, second: Values) -> Comparison:
    """The second against the first, both (Q,) of the same queries: what `embedtrain-compare` computes."""
    of_queries, zeros = (first, second), np.zeros(len(first))
    return compare(*(Sample("mean", one[:, None], zeros, zeros.astype(np.int64)) for one in of_queries))


def _texts(path: Path) -> dict[str, str]:
    rows = (row for _, row in read_rows(path))
    return {row["id"]: f"{row.get('title') or ''} {row['text']}".strip() for row in rows}


def _gain(grades: dict[str, float], ranked: Sequence[str]) -> float:
    def discounted(values: Sequence[float]) -> float:
        return float(sum(value / np.log2(rank + 2) for rank, value in enumerate(values)))

    best = sorted(grades.values(), reverse=True)[:DEPTH]
    return 100 * discounted([grades.get(name, 0.0) for name in ranked]) / discounted(best)
