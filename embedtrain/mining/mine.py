"""Queries and documents to negatives: nearest documents, rules, choice; a block of queries at a time.

Letters: Q queries, b queries of a block, C candidates of a query (`Selection.depth`), K negatives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedtrain.mining.problem import Problem, draw_key
from embedtrain.mining.rescore import PairScores
from embedtrain.mining.selection import Candidates, Floats, Integers, Mask, Selection
from embedtrain.vectors.topk import Fetch, Rows, nearest, pair_scores

BLOCK = 1_024  # queries searched together


class Block(NamedTuple):
    """Some queries, their candidates and negatives."""

    queries: Integers  # (b,) query numbers
    negatives: Integers  # (b, K) document numbers, best first; -1 where a query has fewer
    scores: Floats  # (b, K) NaN where a query has fewer
    labelled: tuple[Floats, ...]  # of each query: scores of `Problem.labelled`, positives first
    documents: Integers  # (b, C) of the candidates
    candidates: Candidates
    removed: dict[str, Mask]  # as in `Choice`


class Miner:
    """Mines the queries of a problem.

    Args:
        problem: queries and documents.
        queries: vectors of all queries.
        documents: vectors of all documents.
        fetch: searches the candidates among them.
        selection: what is taken of the nearest.
        pairs: scores that replace the teacher's in the rules and the output; the teacher's when None.
        seed: of draws.
        step: of draws; 0 outside a run.
    """

    def __init__(
        self,
        problem: Problem,
        queries: Rows,
        documents: Rows,
        fetch: Fetch,
        selection: Selection,
        *,
        pairs: PairScores | None = None,
        seed: int = 0,
        step: int = 0,
    ) -> None:
        self.problem, self.queries, self.documents, self.fetch = problem, queries, documents, fetch
        self.selection, self.pairs, self.seed, self.step = selection, pairs, seed, step

    def block(self, rows: Integers) -> Block:
        """Mine the queries of these numbers (b,)."""
        problem, depth = self.problem, self.selection.depth
        vectors = self.queries.take(rows)
        banned = [problem.banned[row] for row in rows]
        near = nearest(vectors, self.documents, banned, min(depth, problem.pool), self.fetch)
        labelled = [self._labelled_scores(row, vector) for row, vector in zip(rows, vectors, strict=True)]
        documents, scores = near.numbers, near.scores
        ranks = np.tile(np.arange(documents.shape[1], dtype=np.int64), (len(rows), 1))
        if self.pairs is not None:
            labelled, scores = self._rescored(self.pairs, rows, documents)
            order = np.lexsort((documents, -scores), axis=-1)
            documents = np.take_along_axis(documents, order, axis=1)
            scores = np.take_along_axis(scores, order, axis=1)
            ranks = np.take_along_axis(ranks, order, axis=1)
        reference = [
            self.selection.reference_of(known[: len(problem.positives[row])])
            for row, known in zip(rows, labelled, strict=True)
        ]
        candidates = Candidates(documents >= 0, scores, np.array(reference, dtype=np.float64), ranks)
        keys = [draw_key(self.seed, self.step, problem.queries[row].text) for row in rows]
        choice = self.selection.choose(candidates, keys, step=self.step)
        some, columns = choice.columns >= 0, np.maximum(choice.columns, 0)
        return Block(
            rows,
            np.where(some, np.take_along_axis(documents, columns, axis=1), -1),
            np.where(some, np.take_along_axis(scores, columns, axis=1), np.nan),
            tuple(labelled),
            documents,
            candidates,
            choice.removed,
        )

    def _labelled_scores(self, row: int, vector: NDArray[np.generic]) -> Floats:
        taken = self.documents.take(self.problem.labelled(row))
        scores: Floats = pair_scores(vector[None], taken[None])[0]
        return scores

    def _rescored(
        self, model: PairScores, rows: Integers, documents: Integers
    ) -> tuple[list[Floats], Floats]:
        """The cross-encoder's scores: of what is labelled for each query, and (b, C) of its candidates."""
        problem, there = self.problem, documents >= 0
        known = [problem.labelled(row) for row in rows]
        sought = [[*first, *near[some]] for first, near, some in zip(known, documents, there, strict=True)]
        pairs = [
            (problem.queries[row].text, problem.documents[document])
            for row, listed in zip(rows, sought, strict=True)
            for document in listed
        ]
        flat = model.score(pairs).astype(np.float64)
        parts = np.split(flat, np.cumsum([len(listed) for listed in sought])[:-1])
        scores = np.full(documents.shape, -np.inf)
        scores[there] = np.concatenate([part[len(first) :] for part, first in zip(parts, known, strict=True)])
        return [part[: len(first)] for part, first in zip(parts, known, strict=True)], scores


class Mined(NamedTuple):
    """The negatives of all queries of a problem."""

    negatives: Integers  # (Q, K) document numbers; -1 where a query has fewer
    scores: Floats  # (Q, K); NaN likewise
    labelled: tuple[Floats, ...]  # of each query: scores of `Problem.labelled`


def mine(miner: Miner, notes: Sequence[Callable[[Problem, Block], None]] = ()) -> Mined:
    """The negatives of every query; each block is shown to `notes` on the way."""
    count, per_row = len(miner.problem.queries), miner.selection.per_row
    negatives = np.full((count, per_row), -1, dtype=np.int64)
    scores = np.full((count, per_row), np.nan)
    labelled: list[Floats] = []
    for start in range(0, count, BLOCK):
        block = miner.block(np.arange(start, min(start + BLOCK, count)))
        negatives[block.queries], scores[block.queries] = block.negatives, block.scores
        labelled += block.labelled
        for note in notes:
            note(miner.problem, block)
    return Mined(negatives, scores, tuple(labelled))
