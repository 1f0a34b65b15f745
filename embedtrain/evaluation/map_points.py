"""A map of a retrieval task: some queries and documents in two dimensions, and which queries fail.

Letters: Q queries, N documents of the corpus, P points, D dims.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from embedtrain.evaluation.health.sampled import first_part, spread
from embedtrain.evaluation.mteb_private import Untyped, texts_of_table
from embedtrain.evaluation.vectors.bank import GridBank, Held
from embedtrain.files.measured.points import About, Map, Point
from embedtrain.types import SubModel

QUERIES, DOCUMENTS = 300, 900  # most points of a kind
CORPUS = 100_000  # most documents of a task that is mapped: the ranks of queries are over all of them
DEPTH = 10  # results of a query that count
NEAR, LETTERS = 5, 240  # neighbours and letters that a point keeps

Floats = NDArray[np.float32]


def map_of(task: Untyped, bank: GridBank, sub: SubModel, *, run: str, step: int) -> Map | None:
    """The map at a sub-model; None for other types of task, large corpora, vectors not held or not finite.

    Nothing is encoded. Positions are the two first principal components of the points.
    """
    part = first_part(task)
    ids, texts = bank.corpus_read
    if not isinstance(part, Mapping) or not 2 <= len(ids) <= CORPUS:
        return None
    documents = [bank.held(text, "document") for text in texts]
    asked = _asked(part, bank, {name: row for row, name in enumerate(ids)})
    if not asked or any(one is None for one in documents):
        return None
    held = [one for one in documents if one is not None]
    queries = bank.of([one for one, _ in asked], sub).numpy()  # (Q, D)
    corpus = bank.of(held, sub).numpy()  # (N, D)
    if not (np.isfinite(queries).all() and np.isfinite(corpus).all()):
        return None
    scores = queries @ corpus.T  # (Q, N)
    depth = min(DEPTH, len(held) - 1)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :depth]  # (Q, depth)
    ranks = [1 + int((row > row[good].max()).sum()) for row, (_, good) in zip(scores, asked, strict=True)]
    wanted = dict.fromkeys(chain(*(good[:1] for _, good in asked), *best[:, :NEAR].T.tolist()))
    wanted |= dict.fromkeys(spread(range(len(held)), DOCUMENTS - len(wanted)))
    shown = sorted(list(wanted)[:DOCUMENTS])
    place = {row: len(asked) + number for number, row in enumerate(shown)}
    at = in_the_plane(np.concatenate([queries, corpus[shown]]))
    points = [
        Point(
            "query", one.text[:LETTERS], float(at[number, 0]), float(at[number, 1]), rank, rank > DEPTH,
            tuple(place[row] for row in found[:NEAR].tolist() if row in place),
            tuple(place[row] for row in good if row in place),
        )
        for number, ((one, good), rank, found) in enumerate(zip(asked, ranks, best, strict=True))
    ]  # fmt: skip
    for row in shown:
        x, y = at[place[row]].tolist()
        points.append(Point("document", held[row].text[:LETTERS], x, y))
    return Map(About(run, step, task.metadata.name, *sub, DEPTH, len(held)), tuple(points))


def in_the_plane(vectors: Floats) -> Floats:
    """(P, 2): the first two principal components of (P, D); the largest weight of each is positive."""
    centred = vectors.astype(np.float64) - vectors.mean(0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :2]  # (D, 2) the largest first
    axes = axes * np.where(axes[np.abs(axes).argmax(0), range(axes.shape[1])] < 0, -1, 1)
    flat = np.zeros((len(vectors), 2), dtype=np.float32)
    flat[:, : axes.shape[1]] = centred @ axes
    return flat


def _asked(
    part: Mapping[str, Untyped], bank: GridBank, rows: Mapping[str, int]
) -> list[tuple[Held, list[int]]]:
    """Queries that are held, each with the rows of its relevant documents, at equal distances."""
    table = part["queries"]
    judged = [
        [
            rows[name]
            for name, score in part["relevant_docs"].get(query, {}).items()
            if score > 0 and name in rows
        ]
        for query in table["id"][:]
    ]
    chosen = spread([number for number, good in enumerate(judged) if good], QUERIES)
    found = []
    for number, text in zip(chosen, texts_of_table(table.select(chosen), "query"), strict=True):
        if (one := bank.held(text, "query")) is not None:
            found.append((one, judged[number]))
    return found
