"""Pairs and triples of a batch that losses over vectors work on, taken from its pairing.

They are the same for every sub-model, so a loss picks them once a batch: on the host, which then waits for a
GPU only to learn what the rules say of hard negatives.

Letters: B queries, C documents, P pairs, N hard negatives.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from embedtrain.objective.similarity.decided import decided
from embedtrain.objective.similarity.row_terms import chunk_rows
from embedtrain.transfers import moved, moved_together
from embedtrain.types import BlockName, InputError, Pairing

Labels = Literal["scores", "negatives"]
LABELS: tuple[Labels, ...] = ("scores", "negatives")
QUERY_DOCS: tuple[BlockName, ...] = ("query_docs",)


@runtime_checkable
class Picks(Protocol):
    """A loss of vectors that works on some pairs alone; it takes what it picked as its last argument."""

    def pick(self, pairing: Pairing) -> Any:  # noqa: ANN401
        """What is the same for every sub-model, where the vectors are.

        Raises:
            InputError: if the batch has nothing for this loss.
        """
        ...


class Pairs(NamedTuple):
    """Query i and document j, and how similar they should be; of the host."""

    query: Tensor  # (P,) int64, 0..B-1
    doc: Tensor  # (P,) int64 column of the C documents
    label: Tensor  # (P,) float, higher is more similar; only its order counts where a loss ranks
    task: Tensor  # (P,) int64


class Owned(NamedTuple):
    """Hard negatives, each with the query that brought it, in the order of the documents."""

    query: Tensor  # (N,) int64, 0..B-1
    doc: Tensor  # (N,) int64 column of the C documents


class Ranking(NamedTuple):
    """Pairs in the order of their labels, task by task."""

    query: Tensor  # (P,) as `Pairs`
    doc: Tensor  # (P,)
    order: Tensor  # (P,) int64 the pairs of one task after those of another, each by ascending label
    better: Tensor  # (P,) int64 the first place in its task with a strictly higher label
    sizes: tuple[int, ...]  # pairs of each task


def on_host(pairing: Pairing) -> Pairing:
    """The pairing whose numbers the host may read."""
    return pairing if pairing.here is None else pairing.here


def there(pairing: Pairing, *numbers: Tensor) -> list[Tensor]:
    """Numbers of the host beside the vectors of a batch, without waiting."""
    return [cast(Tensor, part) for part in moved_together(numbers, pairing.target.device)]


def labelled_pairs(labels: Labels, loss: str, pairing: Pairing, *, even: bool = False) -> Pairs:
    """The pairs that carry a label.

    "scores": each query and its positive where the row has a score. "negatives": each query and its positive
    with label 1, then each query and its own hard negatives with label 0; where `even`, the positive is
    repeated once for each of them, so that both labels weigh the same.

    Args:
        labels: where the labels come from.
        loss: name of who asks, for messages.
        pairing: of the batch.
        even: see above.

    Raises:
        InputError: if there is no such pair.
    """
    if labels == "scores":
        return _scored(loss, on_host(pairing))
    owned, pairing = own_negatives(loss, pairing), on_host(pairing)
    positive = owned.query if even else torch.arange(len(pairing.target))  # (B,) or (N,)
    pairs = torch.cat([positive, owned.query])  # (P,)
    label = torch.cat([torch.ones(len(positive)), torch.zeros(len(owned.doc))])
    return Pairs(pairs, torch.cat([pairing.target[positive], owned.doc]), label, pairing.task[pairs])


def _scored(loss: str, pairing: Pairing) -> Pairs:
    """Queries and their positives, rows without a score left out."""
    scores = pairing.scores
    row = pairing.target.new_zeros(0) if scores is None else (~scores.isnan()).nonzero().squeeze(1)  # (P,)
    if scores is None or len(row) == 0:
        raise InputError(
            f'{loss} needs a "score" on the training rows and none of this batch has one: '
            "add the scores, or train unscored pairs with InfoNCE"
        )
    return Pairs(row, pairing.target[row], scores[row], pairing.task[row])


def ranking(pairs: Pairs, pairing: Pairing) -> Ranking:
    """Who ranks above whom among labelled pairs of one task."""
    orders, betters = [], []
    for task in torch.unique(pairs.task):
        mine = (pairs.task == task).nonzero()[:, 0]
        label, order = pairs.label[mine].sort()  # ascending
        orders.append(mine[order])
        betters.append(torch.searchsorted(label, label, right=True))
    query, doc, order, better = there(pairing, pairs.query, pairs.doc, torch.cat(orders), torch.cat(betters))
    return Ranking(query, doc, order, better, tuple(map(len, orders)))


def brought(pairing: Pairing) -> Owned:
    """All documents that a query brought besides positives, whatever the rules say; of the host."""
    pairing = on_host(pairing)
    hard = pairing.owner >= 0  # (C,)
    hard[pairing.target] = False
    column = hard.nonzero().squeeze(1)  # (N,)
    return Owned(pairing.owner[column], column)


def own_negatives(loss: str, pairing: Pairing) -> Owned:
    """Hard negatives that the rules let their own query be contrasted with; of the host.

    Args:
        loss: name of who asks, for messages.
        pairing: of the batch, its candidates `decided`.

    Raises:
        InputError: if no query of the batch brought a hard negative.
    """
    owned = brought(pairing)
    if len(owned.doc) == 0:
        raise InputError(
            f"{loss} needs hard negatives and no row of this batch has any: "
            'add "negatives" to the training rows, or train without them by loss=infonce'
        )
    device = pairing.target.device
    asking = torch.unique(owned.query)  # ascending
    places, found = [], []
    for rows in asking.split(chunk_rows(device, None, len(pairing.owner), 1)):
        allowed = pairing.candidates.allowed(rows, QUERY_DOCS, None).blocks.query_docs  # (b, C)
        mine = ((owned.query >= rows[0]) & (owned.query <= rows[-1])).nonzero().squeeze(1)
        row, column = there(pairing, torch.searchsorted(rows, owned.query[mine]), owned.doc[mine])
        places.append(mine)
        found.append(allowed[row, column])
    kept = torch.zeros_like(owned.doc, dtype=torch.bool)  # (N,)
    kept[torch.cat(places)] = moved(torch.cat(found), kept.device)
    return Owned(owned.query[kept], owned.doc[kept])


def picked(loss: Picks, query: Tensor, docs: Tensor, pairing: Pairing) -> Any:  # noqa: ANN401
    """What a loss picks for one sub-model alone, whose cosines the rules are given where they want some."""
    return loss.pick(decided(pairing, query, docs))
