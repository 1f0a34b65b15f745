"""Exhaustive search over the vectors of a cell, with the choices of mteb's own loop where scores are equal.

Letters: Q queries, N documents, K candidates of a query, d coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from embedtrain.evaluate.vectors.quantize import ranges_of, signs, through_int8
from embedtrain.evaluate.vectors.ranking import Best, Order, largest, no_best, order_of
from embedtrain.types import Dtype

_AT_ONCE = 2**26  # 256 MiB of float32: queries are searched in blocks of at most so many similarities

Found = dict[str, dict[str, float]]


class Corpus(NamedTuple):
    """Documents as a store keeps them."""

    ids: list[str]
    kept: Tensor  # (N, d) float32 values of what is kept; what the last ranking reads
    signs: Tensor | None = None  # (N, d) +1 and -1 that are searched first, by the signs of the query
    again: int | None = None  # so many times top_k are then ranked by the float32 query; None ranks by signs

    def shortlist(self, top_k: int) -> int:
        """How many documents of a query the first search lets through."""
        return top_k if self.again is None else self.again * top_k


def as_kept(
    ids: list[str], unit: Tensor, dtype: Dtype, rescore_multiplier: int, ranges: Tensor | None = None
) -> Corpus:
    """Documents of unit vectors (N, d) as a store of this dtype keeps them.

    `ranges` (2, d) are those of int8, by default of these documents.
    """
    if dtype == "float32":
        return Corpus(ids, unit)
    if "int8" in dtype:
        values = through_int8(unit, ranges_of(unit) if ranges is None else ranges)
        if dtype == "int8":
            return Corpus(ids, values)
        return Corpus(ids, values, signs(unit), rescore_multiplier)
    return Corpus(ids, signs(unit), signs(unit), None if dtype == "binary" else rescore_multiplier)


def best(query_ids: Sequence[str], asked: Tensor, docs: Corpus, top_k: int) -> Found:
    """The best `top_k` documents of each query of `asked` (Q, d): {query id: {document id: cosine}}.

    Of equal ones at the border the larger ids are kept, as mteb does.
    """
    order = cache(lambda: order_of(docs.ids))
    return told(query_ids, best_of(asked, docs, order, top_k), docs.ids, order, top_k)


def best_of(asked: Tensor, docs: Corpus, order: Order, top_k: int) -> Best:
    """Who is found for queries (Q, d); with rescoring, all that the signs let through."""
    block = max(1, _AT_ONCE // max(1, len(docs.ids)))
    unit = F.normalize(docs.kept, dim=1) if docs.signs is None else docs.kept
    parts: list[Best] = []
    for start in range(0, len(asked), block):
        part = asked[start : start + block]
        if docs.signs is None:
            keys = F.normalize(part, dim=1) @ unit.T  # (block, N)
        else:
            keys = signs_cosine(signs(part), docs.signs)
        columns = largest(keys, order, docs.shortlist(top_k))  # (block, K)
        keys = values = keys.gather(1, columns)
        if docs.again is not None:
            pairs = zip(part, columns, strict=True)
            values = torch.cat([cosine(query[None], docs.kept[where]) for query, where in pairs])
        parts.append(Best(keys, columns, values))
    return Best(*(torch.cat(field) for field in zip(*parts, strict=True))) if parts else no_best(0)


def told(query_ids: Sequence[str], found: Best, ids: Sequence[str], order: Order, top_k: int) -> Found:
    """The `top_k` of what was found by the similarity that is told."""
    kept = largest(found.values, lambda: order()[found.columns], top_k)
    columns, values = found.columns.gather(1, kept).tolist(), found.values.gather(1, kept).tolist()
    return {
        name: {ids[column]: value for column, value in zip(where, row, strict=True)}
        for name, where, row in zip(query_ids, columns, values, strict=True)
    }


def rerank(
    query_ids: Sequence[str],
    asked: Tensor,
    docs: Corpus,
    top_ranked: Mapping[str, Sequence[str]],
    top_k: int,
) -> Found:
    """`best` among the documents given for each query; one without any has none.

    With rescoring, the signs first narrow them to `again` times `top_k`.
    """
    row = {doc_id: position for position, doc_id in enumerate(docs.ids)}
    found: Found = {name: {} for name in query_ids}
    for name, query in zip(query_ids, asked, strict=True):
        ids = list(top_ranked.get(name) or ())
        if not ids:
            continue
        rows = torch.tensor([row[doc_id] for doc_id in ids])
        some = docs._replace(ids=ids, kept=docs.kept[rows])
        if docs.signs is not None:
            some = some._replace(signs=docs.signs[rows])
        found.update(best([name], query[None], some, top_k))
    return found


def cosine(left: Tensor, right: Tensor) -> Tensor:
    """(M, N) cosines of (M, d) and (N, d), on the CPU."""
    return F.normalize(left, dim=1) @ F.normalize(right, dim=1).T


def signs_cosine(left: Tensor, right: Tensor) -> Tensor:
    """`cosine` of vectors of +1 and -1: without rounding, so that equal Hamming distances stay equal."""
    return left @ right.T / left.shape[1]
