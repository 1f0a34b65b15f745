"""The k best documents of each query by exact scores, whatever finds the candidates.

A backend gives the m best by float32 scores, which round differently with every block size and library. Their
scores are then made again in float64, where a product of float16 vectors of length one has no rounding at all
(its terms are multiples of 2^-48 and its partial sums stay below 2), and sorted, equal ones by document
number. The result stands if nothing that was not fetched can belong into it, by the bound on float32 sums;
otherwise more is fetched. So exact and faiss give the same rows, ties included.

Letters: b queries, m fetched, k wanted, G width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from embedtrain.mining.store import Vectors

SPARE = 16  # candidates fetched beyond those wanted, so that few queries need a second look
RESCORED = 64  # queries whose candidates are scored in float64 at a time: 70 MB at m = 300, G = 384
ROUNDING = 2.0**-24  # of one float32 operation
LONGEST = 1.01  # of a vector of length one once it is rounded to float16

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


class Fetch(Protocol):
    """Finds candidates."""

    pool: int  # documents 0..pool-1 are candidates
    complete: bool  # whether it never misses one of the m best by its own scores

    def __call__(self, queries: NDArray[np.float32], m: int) -> tuple[NDArray[np.float32], Integers]:
        """(b, m) scores, falling, and document numbers, -1 where there are fewer; m is at most the pool."""
        ...


class Nearest(NamedTuple):
    """The k best of some queries."""

    numbers: Integers  # (b, k) document, -1 where there are fewer
    scores: Floats  # (b, k) falling; -inf where there are fewer


def nearest(
    queries: NDArray[np.generic], documents: Vectors, banned: Sequence[Integers], k: int, fetch: Fetch
) -> Nearest:
    """The k best documents of b queries by (score falling, number rising), none of those banned for each.

    Args:
        queries: (b, G) as they are kept.
        documents: the vectors that the backend searches.
        banned: for each query, sorted document numbers that are no candidates.
        k: 1 or more.
        fetch: the backend; one that is not complete may miss documents, and then so does this.
    """
    result = Nearest(
        np.full((len(queries), k), -1, dtype=np.int64), np.full((len(queries), k), -np.inf, dtype=np.float64)
    )
    wanted = np.array([_power_of_two(k + SPARE + len(out)) for out in banned], dtype=np.int64)
    open_rows = np.arange(len(queries))
    while len(open_rows):
        m = int(wanted[open_rows].min())
        rows = open_rows[wanted[open_rows] == m]
        settled = _settle(queries, documents, [banned[row] for row in rows], rows, k, m, fetch, result)
        again = rows[~settled]
        wanted[again] = m * 4
        open_rows = np.concatenate([open_rows[wanted[open_rows] > m], again])
        open_rows = np.unique(open_rows)
    return result


def pair_scores(queries: NDArray[np.generic], documents: NDArray[np.generic]) -> Floats:
    """(b, m) scores of queries (b, G) with their own documents (b, m, G), in float64.

    Exact for float16 vectors of length one. Others are rounded to 12 digits, below which the order of the
    sum would show.
    """
    left = torch.from_numpy(np.array(queries)).double()
    right = torch.from_numpy(np.array(documents)).double()
    scores: Floats = torch.bmm(right, left.unsqueeze(2))[:, :, 0].numpy()
    return scores if queries.dtype == np.float16 and documents.dtype == np.float16 else scores.round(12)


def _settle(
    queries: NDArray[np.generic],
    documents: Vectors,
    banned: Sequence[Integers],
    rows: Integers,
    k: int,
    m: int,
    fetch: Fetch,
    result: Nearest,
) -> NDArray[np.bool_]:
    """Fill in the results of `rows` from m fetched candidates; (b,) bool, those of which they are certain."""
    m = min(m, fetch.pool)
    near, numbers = fetch(np.asarray(queries[rows], dtype=np.float32), m)
    # Of each of two float32 scores; the sum of G products of vectors of that length has at most this error.
    slack = 2 * documents.width * ROUNDING * LONGEST**2
    certain = np.full(len(rows), m == fetch.pool or not fetch.complete)
    for start in range(0, len(rows), RESCORED):
        some = slice(start, start + RESCORED)
        found = numbers[some]  # (b', m)
        taken = documents.take(np.maximum(found, 0).ravel()).reshape(*found.shape, documents.width)
        scores = pair_scores(queries[rows[some]], taken)
        scores[(found < 0) | _banned(found, banned[some])] = -np.inf
        order = np.lexsort((found, -scores), axis=-1)[:, :k]
        best = np.take_along_axis(scores, order, axis=1)  # (b', k or fewer)
        there = np.isfinite(best)
        place = rows[some]
        result.scores[place, : best.shape[1]] = best
        result.numbers[place, : best.shape[1]] = np.where(there, np.take_along_axis(found, order, axis=1), -1)
        if best.shape[1] == k:
            certain[some] |= best[:, -1] > near[some, -1] + slack
    return certain


def _banned(found: Integers, banned: Sequence[Integers]) -> NDArray[np.bool_]:
    """(b, m) bool, True where a query's candidate is banned for it."""
    span = int(found.max(initial=0)) + 1
    rows = np.repeat(np.arange(len(banned)), [len(out) for out in banned])
    out = np.concatenate([np.empty(0, dtype=np.int64), *banned])
    inside = out < span
    keys = rows[inside] * span + out[inside]
    mine: Integers = np.arange(len(found))[:, None] * span + np.maximum(found, 0)
    return np.isin(mine, keys)


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
