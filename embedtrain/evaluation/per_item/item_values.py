"""How each type of task makes its score of items, from what mteb predicted.

Types that are not here (bitext mining, summarisation, several labels) keep no items.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedtrain.content_ids import content_id
from embedtrain.evaluation.catalogue.official.plain_labels import Lists
from embedtrain.evaluation.mteb_private import Untyped, reciprocal_ranks
from embedtrain.evaluation.per_item.weighted import Floats

Where = tuple[str, str]  # split, subset


class Asked(NamedTuple):
    """What a part of the data asks: the same for every cell."""

    ids: NDArray[np.int64]  # (n,)
    gold: Floats  # (n,) the gold of similarities, 0 or 1 for pairs, else zeros
    labels: Sequence[Any] = ()  # n, of a classification


class Values(NamedTuple):
    """What a cell made of it."""

    metric: str
    statistic: str
    columns: Floats  # (n, k)


def asked_by(task: Untyped, where: Where) -> Asked | None:
    """The items of a part of the task's data, from its texts; None for types that read none."""
    kind = task.metadata.type
    if kind not in ("STS", "PairClassification", "Classification"):
        return None
    rows = _rows(task, where)
    if kind == "STS":
        return Asked(_pair_ids(rows, *task.column_names), _floats(rows["score"]))
    if kind == "PairClassification":
        names = task.input1_column_name, task.input2_column_name
        return Asked(_pair_ids(rows, *names), _floats(rows[task.label_column_name]))
    texts = rows[task.input_column_name]
    return Asked(hashes(texts), np.zeros(len(texts)), rows[task.label_column_name])


def of_queries(
    metric: str,
    scores: Mapping[str, Mapping[str, float]],
    qrels: Mapping[str, Mapping[str, int]],
    results: Mapping[str, Mapping[str, float]],
) -> list[float] | None:
    """A retrieval metric of each query, None if it is no mean over queries.

    `scores` are pytrec_eval's of each query, in whose names mteb's are found; the reciprocal rank is mteb's.
    """
    name, _, depth = ("recall_at_1" if metric == "accuracy" else metric).partition("_at_")
    theirs = {
        "ndcg": "ndcg_cut_",
        "map": "map_cut_",
        "recall": "recall_",
        "precision": "P_",
        "hit_rate": "success_",
    }
    if name in theirs:
        key = theirs[name] + depth
        return (
            [each[key] for each in scores.values()] if all(key in each for each in scores.values()) else None
        )
    if name == "mrr" and set(results) == set(scores):
        return reciprocal_ranks(qrels, {query: results[query] for query in scores}, int(depth))
    return None


def values_of(task: Untyped, asked: Asked | None, caught: Untyped, score: Mapping[str, Any]) -> Values | None:
    """The values of a cell, None for a type that keeps none. `score` are mteb's metrics of this part."""
    main, kind = str(task.metadata.main_score), task.metadata.type
    if kind == "Clustering":
        return _clustering(main, score)
    if asked is None:
        return None
    if kind == "STS":
        return _similarities(main, caught)
    if kind == "PairClassification":
        return _pairs(main, caught)
    labels = np.asarray(asked.labels)
    right = np.mean([np.asarray(one) == labels for one in caught], axis=0)  # over experiments
    return Values("accuracy", "mean", _column(right))


def hashes(texts: Iterable[str]) -> NDArray[np.int64]:
    """A number of 63 bits of each text, (n,)."""
    return np.array([content_id(str(text)) for text in texts], dtype=np.int64)


def _similarities(main: str, caught: Untyped) -> Values:
    own = main in ("spearman", "pearson")
    metric = main if own or main == "cosine_pearson" else "cosine_spearman"
    statistic = "pearson" if metric.endswith("pearson") else "spearman"
    return Values(metric, statistic, _column(caught["similarity_scores" if own else "cosine_scores"]))


def _pairs(main: str, caught: Untyped) -> Values:
    """Average precision of one similarity; for max_ap, of the best of several."""
    if main != "max_ap":
        own = main == "similarity_ap"
        similarity = caught["similarity_scores" if own else "cosine_scores"]
        return Values("similarity_ap" if own else "cosine_ap", "average_precision", _column(similarity))
    columns = [caught[name] for name in ("similarity_scores", "cosine_scores", "dot_scores")]
    columns += [-_floats(caught[name]) for name in ("manhattan_distances", "euclidean_distances")]
    return Values(
        "max_ap", "average_precision", np.unique(np.column_stack(columns).astype(np.float64), axis=1)
    )


def _clustering(main: str, score: Mapping[str, Any]) -> Values | None:
    metric = "ami" if main == "ami" else "v_measure"
    found = score.get("ami_scores" if metric == "ami" else "v_measures")
    if found is None:
        return None
    each = (
        chain.from_iterable(found.values()) if isinstance(found, Mapping) else found
    )  # by level of the labels
    return Values(metric, "mean", _column(list(each)))


def _rows(task: Untyped, where: Where) -> Untyped:
    """The table of a split and subset, read as lists: a lazy column decodes one element at a time."""
    split, subset = where
    data = task.dataset
    table = data[subset][split] if subset in data else data[split]
    if len(table) == 1:  # an old layout: the whole table in one row
        return table[0]
    return Lists(table)


def _pair_ids(rows: Mapping[str, Any], left: str, right: str) -> NDArray[np.int64]:
    return hashes(f"{one}\0{other}" for one, other in zip(rows[left], rows[right], strict=True))


def _column(values: Untyped) -> Floats:
    return _floats(values)[:, None]


def _floats(values: Untyped) -> Floats:
    return np.asarray(values, dtype=np.float64)
