"""What searches candidates: torch, faiss in blocks, or an approximate index of faiss.

Letters: Q queries, m fetched, N documents, G width.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from embedtrain.types import InputError
from embedtrain.vectors.topk import Exact, Fetch, Integers, Rows

log = logging.getLogger(__name__)
Index = Literal["auto", "exact", "faiss", "ivf", "hnsw"]
EXACT_BELOW = 50_000  # documents up to which torch searches when faiss is there too
FAISS_BLOCK = 65_536
PER_CELL = 64  # vectors that train a cell of an inverted file; faiss warns below 39
MISSING = (
    "faiss is not installed: pip install 'embedtrain[mine]', or use index=exact, which gives the same rows"
)


def backend(index: Index, documents: Rows, pool: int, *, device: str | torch.device = "cpu") -> Fetch:
    """What searches documents 0..pool-1.

    Args:
        index: "exact" is torch; "faiss" its flat inner product; "auto" the one or the other by the number of
            documents, and torch where faiss is not installed: the rows are the same. "ivf" and "hnsw" are
            approximate: they may miss documents.
        documents: their vectors.
        pool: how many are candidates.
        device: where torch searches.

    Raises:
        InputError: for an unknown index, or one of faiss where it is not installed.
    """
    there = check_index(index)
    if index == "auto":
        index = "faiss" if there and pool >= EXACT_BELOW and torch.device(device).type == "cpu" else "exact"
        if not there and pool >= EXACT_BELOW:
            log.info(
                "searching %d documents with torch; faiss is faster: pip install 'embedtrain[mine]'", pool
            )
    if index == "exact":
        return Exact(documents, pool, device)
    return FaissSearch(documents, pool) if index == "faiss" else ApproximateSearch(documents, pool, index)


def check_index(index: str) -> bool:
    """Whether faiss is there. Raises InputError for an unknown index, or one of faiss without it."""
    if index not in get_args(Index):
        raise InputError(f"index must be one of {', '.join(get_args(Index))}, got {index!r}")
    there = importlib.util.find_spec("faiss") is not None
    if index in ("faiss", "ivf", "hnsw") and not there:
        raise InputError(MISSING)
    return there


class FaissSearch:
    """faiss' flat inner product, a block of documents at a time, so that no index is kept in memory."""

    complete = True

    def __init__(self, documents: Rows, pool: int) -> None:
        self.documents, self.pool = documents, pool

    def __call__(self, queries: NDArray[np.float32], m: int) -> tuple[NDArray[np.float32], Integers]:
        """As `Fetch`."""
        import faiss

        best = np.empty((len(queries), 0), dtype=np.float32)
        numbers = np.empty((len(queries), 0), dtype=np.int64)
        left = np.ascontiguousarray(queries)
        for first, block in self.documents.blocks(self.pool, FAISS_BLOCK):
            near, columns = faiss.knn(
                left, block.numpy(), min(m, len(block)), metric=faiss.METRIC_INNER_PRODUCT
            )
            best = np.concatenate([best, near], axis=1)
            numbers = np.concatenate([numbers, columns + first], axis=1)
            order = np.argsort(-best, axis=1, kind="stable")[:, :m]
            best, numbers = np.take_along_axis(best, order, 1), np.take_along_axis(numbers, order, 1)
        return best, numbers


class ApproximateSearch:
    """An inverted file or a graph of faiss over float16 vectors, built in memory; it may miss documents.

    An inverted file has about 4 sqrt(N) cells, of which a query looks into one in sixteen.
    """

    complete = False

    def __init__(self, documents: Rows, pool: int, kind: str) -> None:
        import faiss

        self.pool, width = pool, documents.width
        cells = max(1, min(round(4 * pool**0.5), pool // PER_CELL))
        name = f"IVF{cells},SQfp16" if kind == "ivf" else "HNSW32,SQfp16"
        make: Callable[..., Any] = faiss.index_factory
        self.index = make(width, name, faiss.METRIC_INNER_PRODUCT)
        if kind == "ivf":
            self.index.nprobe = max(1, cells // 16)
        else:
            self.index.hnsw.efConstruction = 200
        drawn = np.random.default_rng(0).permutation(pool)[: cells * PER_CELL]
        self.index.train(documents.take(np.sort(drawn)).astype(np.float32))
        for _, block in documents.blocks(pool, FAISS_BLOCK):
            self.index.add(block.numpy())
        log.info("built %s over %d documents: approximate, it may miss some", name, pool)

    def __call__(self, queries: NDArray[np.float32], m: int) -> tuple[NDArray[np.float32], Integers]:
        """As `Fetch`."""
        if hasattr(self.index, "hnsw"):
            self.index.hnsw.efSearch = max(2 * m, 64)
        scores, numbers = self.index.search(np.ascontiguousarray(queries), m)
        return scores, numbers.astype(np.int64)
