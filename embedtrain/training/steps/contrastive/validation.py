"""In-loop quality of sub-models on held-out rows: nDCG@10 of positives, or Spearman of scored pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from scipy.stats import spearmanr
from torch import Tensor

from embedtrain.types import Embeddings, Links, SubModel


class Collected(NamedTuple):
    """Embeddings and links of the validation batches seen so far."""

    texts: list[Embeddings]
    links: list[Links]

    def joined(self) -> tuple[Embeddings, Links]:
        """All batches as one, indices moved accordingly."""
        values = torch.cat([part.values for part in self.texts], dim=1)
        return Embeddings(values, self.texts[0].layers), join_links(self.links)


def join_links(parts: Sequence[Links]) -> Links:
    """The links of several batches as those of one batch, in order."""
    texts = queries = docs = 0
    moved = []
    for part in parts:
        moved.append(part.shifted(texts, queries, docs))
        texts, queries, docs = texts + len(part.content_ids), queries + len(part.query), docs + len(part.docs)
    columns = zip(*moved, strict=True)  # scores and teacher are of all rows here, or taken for none
    return Links._make(
        None if any(part is None for part in column) else torch.cat(column) for column in columns
    )


def sub_model_scores(
    texts: Embeddings, links: Links, sub_models: Sequence[SubModel]
) -> tuple[str, dict[SubModel, float]]:
    """Name of the metric and its value in [-1, 1] per sub-model.

    Scored pairs, where there are any: Spearman correlation of cosine and label, other rows left out. Else
    nDCG@10 where each query ranks every distinct document and its labelled positives are relevant.
    """
    if links.scores is not None:
        scored = links.scores.isfinite()
        docs = texts.rows(links.docs[links.positive][scored])
        labels = links.scores[scored]
        query = texts.rows(links.query[scored])
        return "spearman", {sub: _spearman(query.at(sub), docs.at(sub), labels) for sub in sub_models}
    ids, first = _distinct(links.content_ids[links.docs])
    docs, query = texts.rows(links.docs[first]), texts.rows(links.query)
    relevant = torch.zeros(len(links.query), len(ids), dtype=torch.bool, device=ids.device)
    known = torch.isin(links.known, ids)
    relevant[links.known_owner[known], torch.searchsorted(ids, links.known[known])] = True
    return "ndcg_at_10", {sub: _ndcg(query.at(sub), docs.at(sub), relevant) for sub in sub_models}


def _distinct(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Sorted distinct ids (U,) and the position of the first of each (U,)."""
    unique, inverse = torch.unique(ids, return_inverse=True)
    first = torch.full_like(unique, len(ids))
    first.scatter_reduce_(0, inverse, torch.arange(len(ids), device=ids.device), reduce="amin")
    return unique, first


def _spearman(query: Tensor, docs: Tensor, labels: Tensor) -> float:
    similarity = (query * docs).sum(-1)  # (B,)
    return float(spearmanr(similarity.cpu().numpy(), labels.cpu().numpy()).statistic)


def _ndcg(query: Tensor, docs: Tensor, relevant: Tensor) -> float:
    if docs.shape[0] == 1:  # one candidate is always ranked first; scikit-learn refuses to say so
        return 1.0
    from sklearn.metrics import ndcg_score  # a second that a run without validation does not spend

    scores = query @ docs.T  # (B, U)
    return float(ndcg_score(relevant.cpu().numpy(), scores.float().cpu().numpy(), k=10, ignore_ties=True))
