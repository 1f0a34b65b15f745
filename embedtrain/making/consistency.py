"""Round-trip consistency: a pair stays if a model finds its text among the first for its query.

Dai et al. 2022, Promptagator, 2209.11755, section 3.2: the passage that a query was made of must be the first
of the corpus for it. Letters: P pairs, N texts, G width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from embedtrain.devices import exact_float32
from embedtrain.making.maker import Pair
from embedtrain.vectors.topk import Rows

TIE = 1e-6  # of cosines: one that is no higher than by this is no better
BLOCK, QUERIES = 8192, 1024


def ranks_of(pairs: Sequence[Pair], queries: Rows, texts: Rows, names: Sequence[str]) -> NDArray[np.int64]:
    """(P,) how many texts of other pairs are nearer to a query than its own, texts of equal queries left out.

    Args:
        pairs: P of them.
        queries: vectors of the query of each pair.
        texts: vectors of N distinct texts.
        names: these texts.
    """
    place = {text: number for number, text in enumerate(names)}
    own = np.array([place[pair.positive] for pair in pairs], np.int64)
    alike: dict[str, list[int]] = {}
    for number, pair in zip(own.tolist(), pairs, strict=True):
        alike.setdefault(pair.query, []).append(number)
    found = np.zeros(len(pairs), np.int64)
    with exact_float32():
        for first in range(0, len(pairs), QUERIES):
            rows = np.arange(first, min(first + QUERIES, len(pairs)))
            query = torch.from_numpy(queries.take(rows)).float()
            mine = (query * torch.from_numpy(texts.take(own[rows])).float()).sum(1, keepdim=True)
            for begin, block in texts.blocks(len(names), BLOCK):
                nearer = query @ block.T > mine + TIE  # (q, block)
                for row, asked in enumerate(rows.tolist()):
                    for number in alike[pairs[asked].query]:
                        if begin <= number < begin + len(block):
                            nearer[row, number - begin] = False
                found[rows] += nearer.sum(1).numpy()
    return found
