"""The largest of many similarities, equal ones decided by the document: whole, or in parts that are merged.

Letters: Q queries, N documents, K kept of each query.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Order = Callable[[], Tensor]  # the places of documents among all, those that win ties last


def order_of(ids: Sequence[str]) -> Tensor:
    """The place of each document's id among all, sorted, (N,) int64."""
    order = torch.empty(len(ids), dtype=torch.int64)
    order[torch.tensor(sorted(range(len(ids)), key=ids.__getitem__), dtype=torch.int64)] = torch.arange(
        len(ids)
    )
    return order


def largest(values: Tensor, order: Order, count: int) -> Tensor:
    """Columns (Q, K) of the `count` largest of each row of (Q, N), or of all; in no promised sequence.

    Of values equal to the last, those whose `order`, (N,) or (Q, N), is larger are kept; it is asked for only
    then. torch's topk takes any of them, so that its choice would depend on how a corpus is parted.
    """
    if count >= values.shape[1]:
        return torch.arange(values.shape[1]).expand(values.shape)
    top, columns = values.topk(count + 1, dim=1)
    columns = columns[:, :count].clone()
    for row in (top[:, count - 1] == top[:, count]).nonzero()[:, 0].tolist():
        border = top[row, count]
        above = (values[row] > border).nonzero()[:, 0]
        equal = (values[row] == border).nonzero()[:, 0]
        places = order()
        place = (places if places.dim() == 1 else places[row])[equal]
        columns[row] = torch.cat([above, equal[place.topk(count - len(above)).indices]])
    return columns


class Best(NamedTuple):
    """The best documents of each query so far."""

    keys: Tensor  # (Q, K) float32 similarities that decide who is kept
    columns: Tensor  # (Q, K) int64 numbers of the documents
    values: Tensor  # (Q, K) float32 the similarity that is told; `keys` themselves without rescoring

    def merged(self, other: Best, order: Order, count: int) -> Best:
        """The best `count` of both; `order` is that of all documents."""
        keys, columns, values = (torch.cat(pair, dim=1) for pair in zip(self, other, strict=True))
        kept = largest(keys, lambda: order()[columns], count)
        return Best(keys.gather(1, kept), columns.gather(1, kept), values.gather(1, kept))


def no_best(queries: int) -> Best:
    """Nothing found yet."""
    return Best(torch.empty(queries, 0), torch.empty(queries, 0, dtype=torch.int64), torch.empty(queries, 0))
