"""Exhaustive search over the vectors of a cell, with the choices of mteb's own loop where scores are equal.

Letters: Q queries, N documents, d coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from embedtrain.vectors.dtypes import Corpus, cosine, signs, signs_cosine
from embedtrain.vectors.topk import Best, Order, largest, no_best, top

_AT_ONCE = 2**26  # 256 MiB of float32: queries are searched in blocks of at most that many similarities

Hits = dict[str, dict[str, float]]  # query id -> document id -> similarity


def order_of(ids: Sequence[str]) -> Order:
    """The place of each document's id among all, sorted; mteb lets the larger id win a tie."""

    @cache
    def places() -> Tensor:
        order = torch.empty(len(ids), dtype=torch.int64)
        ascending = sorted(range(len(ids)), key=ids.__getitem__)
        order[torch.tensor(ascending, dtype=torch.int64)] = torch.arange(len(ids))
        return order

    return lambda numbers: places()[numbers]


def search(query_ids: Sequence[str], asked: Tensor, docs: Corpus, top_k: int) -> Hits:
    """The best `top_k` documents of each query of `asked` (Q, d), by their cosines."""
    order = order_of(docs.ids)
    return hits_of(query_ids, best_of(asked, docs, order, top_k), docs.ids, order, top_k)


def best_of(asked: Tensor, docs: Corpus, order: Order, top_k: int, first: int = 0) -> Best:
    """The best documents of queries (Q, d); with rescoring, all that the signs let through.

    `first` is the number of the first document.
    """
    block = max(1, _AT_ONCE // max(1, len(docs.ids)))
    unit = F.normalize(docs.values, dim=1) if docs.signs is None else docs.values
    parts: list[Best] = []
    for start in range(0, len(asked), block):
        part = asked[start : start + block]
        if docs.signs is None:
            keys = F.normalize(part, dim=1) @ unit.T  # (block, N)
        else:
            keys = signs_cosine(signs(part), docs.signs)
        best = top(keys, first, order, docs.shortlist(top_k))
        if docs.rescore_multiplier is not None:
            pairs = zip(part, best.numbers - first, strict=True)
            values = torch.cat([cosine(query[None], docs.values[where]) for query, where in pairs])
            best = best._replace(values=values)
        parts.append(best)
    return Best(*(torch.cat(field) for field in zip(*parts, strict=True))) if parts else no_best(0)


def hits_of(query_ids: Sequence[str], best: Best, ids: Sequence[str], order: Order, top_k: int) -> Hits:
    """The `top_k` of the best by the similarity that is reported."""
    columns = largest(best.values, best.numbers, order, top_k)
    numbers, values = best.numbers.gather(1, columns).tolist(), best.values.gather(1, columns).tolist()
    return {
        name: {ids[number]: value for number, value in zip(where, row, strict=True)}
        for name, where, row in zip(query_ids, numbers, values, strict=True)
    }


def rerank(
    query_ids: Sequence[str],
    asked: Tensor,
    docs: Corpus,
    top_ranked: Mapping[str, Sequence[str]],
    top_k: int,
) -> Hits:
    """`search` among the documents given for each query; one without any has none.

    With rescoring, the signs first narrow them to `rescore_multiplier` times `top_k`.
    """
    row = {doc_id: position for position, doc_id in enumerate(docs.ids)}
    hits: Hits = {name: {} for name in query_ids}
    for name, query in zip(query_ids, asked, strict=True):
        ids = list(top_ranked.get(name) or ())
        if not ids:
            continue
        rows = torch.tensor([row[doc_id] for doc_id in ids])
        some = docs._replace(ids=ids, values=docs.values[rows])
        if docs.signs is not None:
            some = some._replace(signs=docs.signs[rows])
        hits.update(search([name], query[None], some, top_k))
    return hits
