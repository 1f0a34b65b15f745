"""A corpus too large to hold, searched for all cells at once while it is encoded.

A chunk of documents is encoded for all layers, searched by every cell, and dropped; what stays is the best of
each query and cell. So a corpus is encoded once and nothing of it is stored. Several ranks take a chunk each
in turn and merge their best. int8 needs the ranges of the whole corpus first: with such cells it is
encoded twice.

Letters: Q queries, m documents of a chunk, D embedding width, d coordinates of a cell.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from embedtrain.evaluation.vectors.bank import GridBank
from embedtrain.evaluation.vectors.search import Hits, best_of, hits_of, order_of
from embedtrain.ranks import all_ranks, rank, world_size
from embedtrain.types import Cell, Embeddings, Role, SubModel
from embedtrain.vectors.dtypes import quantized, ranges_of
from embedtrain.vectors.topk import no_best

LOG = logging.getLogger(__name__)
_CHUNK_BYTES = 2**28  # float32 vectors of a chunk
_MOST_TEXTS = 8_192


class Documents(NamedTuple):
    """A corpus, its texts read when they are needed."""

    ids: Sequence[str]
    texts: Callable[[int, int], list[str]]  # those of documents start..end
    role: Role
    prompt: str | None  # as `GridBank.vectors` takes it


class Asked(NamedTuple):
    """What is searched for."""

    query_ids: Sequence[str]
    queries: Mapping[Cell, Tensor]  # (Q, d) of every cell that will be scored
    top_k: int
    cut_first: bool  # vectors have length one after the cut, not before it alone
    rescore_multiplier: int

    def unit(self, values: Embeddings, cell: Cell) -> Tensor:
        """The vectors (m, d) of a cell."""
        if self.cut_first:
            return values.at(cell.sub)
        return values.at(SubModel(cell.layer, values.values.shape[-1]))[:, : cell.dim].contiguous()


def search_all(bank: GridBank, documents: Documents, asked: Asked) -> dict[Cell, Hits]:
    """What `search` gives for each cell, from one pass over the corpus. All ranks must call alike."""
    ranges = _ranges(bank, documents, asked)
    order = order_of(documents.ids)
    counts = {
        cell: asked.top_k * (asked.rescore_multiplier if "rescore" in cell.dtype else 1)
        for cell in asked.queries
    }
    best = {cell: no_best(len(asked.query_ids)) for cell in asked.queries}
    for start, values in _chunks(bank, documents):
        ids = list(documents.ids[start : start + values.values.shape[1]])
        for cell, queries in asked.queries.items():
            unit = asked.unit(values, cell)
            docs = quantized(ids, unit, cell.dtype, asked.rescore_multiplier, ranges.get(cell))
            part = best_of(queries, docs, order, asked.top_k, start)
            best[cell] = best[cell].merged(part, order, counts[cell])
    first, *others = all_ranks(best)  # each rank has searched its chunks; all merge them alike
    for other in others:
        first = {cell: first[cell].merged(part, order, counts[cell]) for cell, part in other.items()}
    return {
        cell: hits_of(asked.query_ids, part, documents.ids, order, asked.top_k)
        for cell, part in first.items()
    }


def _ranges(bank: GridBank, documents: Documents, asked: Asked) -> dict[Cell, Tensor]:
    """The smallest and largest value of each coordinate over the corpus, (2, d) a cell of int8."""
    cells = [cell for cell in asked.queries if "int8" in cell.dtype]
    if not cells:
        return {}
    LOG.info("int8 needs the ranges of the whole corpus, which is therefore encoded twice")
    own: dict[Cell, list[Tensor]] = {cell: [] for cell in cells}
    for _, values in _chunks(bank, documents):
        for cell in cells:
            own[cell].append(ranges_of(asked.unit(values, cell)))
    gathered = all_ranks(own)
    return {
        # the ranges of all ranges, (chunks * 2, d), are those of the corpus
        cell: ranges_of(torch.cat([part for parts in gathered for part in parts[cell]]))
        for cell in cells
    }


def _chunks(bank: GridBank, documents: Documents) -> Iterator[tuple[int, Embeddings]]:
    """The first number and the vectors (L, m, D) of the chunks that this rank takes."""
    per_text = len(bank.layers) * bank.encoder.width * 4
    size = max(1, min(_MOST_TEXTS, _CHUNK_BYTES // per_text))
    for start in range(rank() * size, len(documents.ids), world_size() * size):
        texts = documents.texts(start, min(start + size, len(documents.ids)))
        yield start, bank.passing(texts, documents.role, documents.prompt)
