"""Pairs and triples of a batch that losses over vectors work on, taken from its pairing.

Letters: B queries, C documents, P pairs, N hard negatives.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from embedtrain.objective.similarity.row_terms import BUDGET
from embedtrain.types import BlockName, Blocks, InputError, Pairing

Labels = Literal["scores", "negatives"]
LABELS: tuple[Labels, ...] = ("scores", "negatives")
QUERY_DOCS: tuple[BlockName, ...] = ("query_docs",)


class Pairs(NamedTuple):
    """Query i and document j, and how similar they should be."""

    query: Tensor  # (P,) int64, 0..B-1
    doc: Tensor  # (P,) int64 column of the C documents
    label: Tensor  # (P,) float, higher is more similar; only its order counts where a loss ranks
    task: Tensor  # (P,) int64


class Owned(NamedTuple):
    """Hard negatives, each with the query that brought it, in the order of the documents."""

    query: Tensor  # (N,) int64, 0..B-1
    doc: Tensor  # (N,) int64 column of the C documents


def labelled_pairs(
    labels: Labels, loss: str, pairing: Pairing, query: Tensor, docs: Tensor, *, even: bool = False
) -> Pairs:
    """The pairs that carry a label.

    "scores": each query and its positive where the row has a score. "negatives": each query and its positive
    with label 1, then each query and its own hard negatives with label 0; where `even`, the positive is
    repeated once for each of them, so that both labels weigh the same.

    Args:
        labels: where the labels come from.
        loss: name of who asks, for messages.
        pairing: of the batch.
        query: (B, d) prefixes.
        docs: (C, d) prefixes.
        even: see above.

    Raises:
        InputError: if there is no such pair.
    """
    if labels == "scores":
        return _scored(loss, pairing)
    owned = own_negatives(loss, pairing, query, docs)
    positive = owned.query if even else torch.arange(len(pairing.target), device=docs.device)  # (B,) or (N,)
    pairs = torch.cat([positive, owned.query])  # (P,)
    label = torch.cat([docs.new_ones(len(positive)), docs.new_zeros(len(owned.doc))])
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


def brought(pairing: Pairing) -> Owned:
    """All documents that a query brought besides positives, whatever the rules say of them."""
    hard = pairing.owner >= 0  # (C,)
    hard[pairing.target] = False
    column = hard.nonzero().squeeze(1)  # (N,)
    return Owned(pairing.owner[column], column)


def own_negatives(loss: str, pairing: Pairing, query: Tensor, docs: Tensor) -> Owned:
    """Hard negatives that the rules let their own query be contrasted with.

    Args:
        loss: name of who asks, for messages.
        pairing: of the batch.
        query: (B, d) prefixes; a rule that wants the model's own similarities is given their cosines.
        docs: (C, d) prefixes.

    Raises:
        InputError: if no query of the batch brought a hard negative.
    """
    owned = brought(pairing)
    if len(owned.doc) == 0:
        raise InputError(
            f"{loss} needs hard negatives and no row of this batch has any: "
            'add "negatives" to the training rows, or train without them by loss=infonce'
        )
    kept = torch.zeros_like(owned.doc, dtype=torch.bool)  # (N,)
    asking = torch.unique(owned.query)  # ascending
    for rows in asking.split(max(BUDGET // len(docs), 1)):
        student = None
        if pairing.candidates.needs_student:
            unit_query, unit_docs = (
                F.normalize(query[rows].detach(), dim=-1),
                F.normalize(docs.detach(), dim=-1),
            )
            student = Blocks(unit_query @ unit_docs.T)  # (b, C)
        allowed = pairing.candidates.allowed(rows, QUERY_DOCS, student).blocks.query_docs  # (b, C)
        mine = ((owned.query >= rows[0]) & (owned.query <= rows[-1])).nonzero().squeeze(1)
        kept[mine] = allowed[torch.searchsorted(rows, owned.query[mine]), owned.doc[mine]]
    return Owned(owned.query[kept], owned.doc[kept])
