"""Takes the items of a score from mteb while it computes the score; nothing is computed twice.

mteb hands its predictions to a method that would write them as JSON, and a retrieval task its scores of each
query to another. For the time of an evaluation both are covered by ones that keep what they are given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from embedtrain.evaluation.mteb_private import SAVE_PREDICTIONS, SCORE_QUERIES, Untyped
from embedtrain.evaluation.per_item.item_values import (
    Asked,
    Values,
    Where,
    asked_by,
    hashes,
    of_queries,
    values_of,
)
from embedtrain.evaluation.per_item.stored import About, ItemValues

WRITES_NOTHING = "predictions"  # mteb's prediction_folder: it only has to be given


class _Part(NamedTuple):
    asked: Asked
    values: dict[str, Values]  # by metric, the main one first


class Collector:
    """The items of every cell of one task, an mteb one whose data are loaded by then."""

    def __init__(self, task: Untyped) -> None:
        self.task = task
        self._ranks = hasattr(task, SCORE_QUERIES)
        self._folds = bool(getattr(task, "is_cross_validation", False))  # unequal ones: no mean over texts
        self._caught: dict[Where, Any] = {}
        self._asked: dict[Where, Asked | None] = {}

    @contextmanager
    def during(self) -> Iterator[None]:
        """While mteb evaluates a cell, with a `prediction_folder`, what it hands out is kept."""
        self._caught = {}
        covers: dict[str, Callable[..., Any]] = {SAVE_PREDICTIONS: self._predictions}
        if self._ranks:
            covers[SCORE_QUERIES] = self._queries
        attributes: dict[str, Any] = self.task.__dict__
        attributes.update(covers)
        try:
            yield
        finally:
            for name in covers:
                del attributes[name]

    def items(self, about: Mapping[str, Any], result: Untyped) -> dict[str, ItemValues]:
        """The items of the cell just evaluated, by split; empty ones where the type keeps none.

        `about` has the fields of `About` but split, subsets and statistics; `result` is mteb's TaskResult.
        """
        found = {}
        for split, scores in result.scores.items():
            parts = [self._part((split, score["hf_subset"]), score) for score in scores]
            names = tuple(score["hf_subset"] for score in scores)
            found[split] = _joined({**about, "split": split, "subsets": names}, parts)
        return found

    def _predictions(self, predictions: Untyped, *_: Untyped, hf_split: str, hf_subset: str) -> None:
        if not self._ranks:
            self._caught[hf_split, hf_subset] = predictions

    def _queries(
        self, scores: Untyped, qrels: Untyped, results: Untyped, *, hf_split: str, hf_subset: str
    ) -> Untyped:
        asked = Asked(hashes(scores), np.zeros(len(scores)))
        values = {}
        for metric in dict.fromkeys((str(self.task.metadata.main_score), "ndcg_at_10")):
            if metric.startswith("mrr") and self.task.skip_first_result:
                continue  # the ranking without its first is mteb's alone
            each = of_queries(metric, scores, qrels, results)
            if each is not None:
                values[metric] = Values(metric, "mean", np.asarray(each, dtype=np.float64)[:, None])
        self._caught[hf_split, hf_subset] = _Part(asked, values)
        own = getattr(type(self.task), SCORE_QUERIES)
        return own(self.task, scores, qrels, results, hf_split=hf_split, hf_subset=hf_subset)

    def _part(self, where: Where, score: Mapping[str, Any]) -> _Part | None:
        caught = self._caught.get(where)
        if isinstance(caught, _Part):
            return caught if caught.values else None
        if self._folds:
            return None
        if where not in self._asked:
            self._asked[where] = asked_by(self.task, where)
        asked = self._asked[where]
        values = values_of(self.task, asked, caught, score)
        if values is None:
            return None
        # experiments have no text: their number is their id
        asked = asked or Asked(np.arange(len(values.columns)), np.zeros(len(values.columns)))
        return _Part(asked, {values.metric: values})


def _joined(about: Mapping[str, Any], parts: list[_Part | None]) -> ItemValues:
    """All parts (languages) of a split as one; a metric that some part lacks is left out."""
    whole = [part for part in parts if part is not None]
    if len(whole) < len(parts) or not whole:
        nothing = np.empty(0)
        empty = nothing.astype(np.int64)
        return ItemValues(About(**about, statistics={}), empty, empty, nothing, {})
    metrics = [metric for metric in whole[0].values if all(metric in part.values for part in whole)]
    return ItemValues(
        About(**about, statistics={metric: whole[0].values[metric].statistic for metric in metrics}),
        np.concatenate([part.asked.ids for part in whole]),
        np.repeat(np.arange(len(whole)), [len(part.asked.ids) for part in whole]),
        np.concatenate([part.asked.gold for part in whole]),
        {metric: _stacked([part.values[metric].columns for part in whole]) for metric in metrics},
    )


def _stacked(columns: list[Any]) -> Untyped:
    """(n_p, k_p) of each part as (n, k); a part with fewer alternatives repeats its first."""
    most = max(column.shape[1] for column in columns)
    return np.concatenate(
        [np.column_stack([column, *[column[:, :1]] * (most - column.shape[1])]) for column in columns]
    )
