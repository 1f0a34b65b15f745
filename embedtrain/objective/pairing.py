"""Who may be a negative of whom, decided once per batch from text ids and shared by every sub-model.

Letters: B queries, C documents (candidates), U distinct document texts, G distinct (query text, task),
K labelled positives.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from embedtrain.types import InputError, Links, Pairing

Negatives = Literal["all", "own"]


def pair(links: Links, *, negatives: Negatives = "all") -> Pairing:
    """Targets and permitted negatives of every query: `target` (B,), `allowed` (B, C), `scores` as they came.

    A document may enter a query's softmax unless
    - it was brought by a query of another task,
    - its text is the query's own text, or
    - its text is a labelled positive of the query. Queries of equal text and task share their labels: the
      positive of one is no negative of its twin.
    The target itself is always allowed, whatever its text.

    Args:
        links: the parts of the (gathered) batch, every index into the same M texts.
        negatives: "all" contrasts a query with every document of the batch; "own" leaves out the hard
            negatives that other queries brought, and keeps their positives.

    Raises:
        InputError: if `negatives` is neither of the two.
    """
    if negatives not in get_args(Negatives):
        raise InputError(f'negatives must be "all" or "own", got {negatives!r}')
    everyone = torch.arange(len(links.query), device=links.query.device)  # (B,)
    allowed = links.task[:, None] == links.task[links.owner][None, :]  # (B, C)
    allowed &= ~_same_text(links, everyone)
    if negatives == "own":
        hard = torch.ones_like(links.docs, dtype=torch.bool)  # (C,)
        hard[links.positive] = False
        allowed &= ~hard[None, :] | (links.owner[None, :] == everyone[:, None])
    allowed[everyone, links.positive] = True
    return Pairing(target=links.positive, allowed=allowed, scores=links.scores)


def _same_text(links: Links, everyone: Tensor) -> Tensor:
    """Where a document's text is the query's own or one of its labelled positives, (B, C) bool.

    The (query, text) couples are ticked in a (G, U) table, so nothing of size B x C x K is ever built.
    """
    query_ids = links.text_ids[links.query]  # (B,)
    texts, column = torch.unique(links.text_ids[links.docs], return_inverse=True)  # (U,) ascending, (C,)
    group = torch.unique(torch.stack([query_ids, links.task]), dim=1, return_inverse=True)[
        1
    ]  # (B,) in 0..G-1
    forbidden = torch.cat([links.known, query_ids])  # (K + B,)
    owner = torch.cat([links.known_owner, everyone])  # (K + B,)
    place = torch.searchsorted(texts, forbidden).clamp(max=len(texts) - 1)  # (K + B,)
    present = texts[place] == forbidden
    table = torch.zeros(len(everyone), len(texts), dtype=torch.bool, device=texts.device)  # (B >= G, U)
    table[group[owner[present]], place[present]] = True
    return table[group][:, column]
