"""What searches candidates: torch, or an approximate index of faiss.

faiss' flat index gave the same rows in twice the time: the 64 nearest of 200,000 documents to 1,024 queries
took it 8.7 CPU-seconds, torch 4.9 (G = 384, two threads).

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
Index = Literal["exact", "ivf", "hnsw"]
BLOCK = 65_536  # documents added to an index at a time
PER_CELL = 64  # vectors that train a cell of an inverted file; faiss warns below 39


def backend(index: Index, documents: Rows, pool: int, *, device: str | torch.device = "cpu") -> Fetch:
    """What searches documents 0..pool-1.

    Args:
        index: "exact" is torch. "ivf" and "hnsw" are approximate: they may miss documents.
        documents: their vectors.
        pool: how many are candidates.
        device: where torch searches.

    Raises:
        InputError: as `check_index`.
    """
    check_index(index)
    return Exact(documents, pool, device) if index == "exact" else ApproximateSearch(documents, pool, index)


def check_index(index: str) -> None:
    """Raise InputError for an unknown index, or one of faiss where that is not installed."""
    if index not in get_args(Index):
        raise InputError(f"index must be one of {', '.join(get_args(Index))}, got {index!r}")
    if index != "exact" and importlib.util.find_spec("faiss") is None:
        raise InputError("faiss is not installed: pip install 'embedtrain[mine]', or use index=exact")


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
        for _, block in documents.blocks(pool, BLOCK):
            self.index.add(block.numpy())
        log.info("built %s over %d documents: approximate, it may miss some", name, pool)

    def __call__(self, queries: NDArray[np.float32], m: int) -> tuple[NDArray[np.float32], Integers]:
        """As `Fetch`."""
        if hasattr(self.index, "hnsw"):
            self.index.hnsw.efSearch = max(2 * m, 64)
        scores, numbers = self.index.search(np.ascontiguousarray(queries), m)
        return scores, numbers.astype(np.int64)
