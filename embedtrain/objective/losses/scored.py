"""Losses over pairs whose order of similarity is known: CoSENT, and the ranking that AnglE shares with it.

CoSENT: Su 2022, https://kexue.fm/archives/8847; the formula as in sentence-transformers' CoSENTLoss.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedtrain.objective.losses.pairs import LABELS, Labels, Ranking, labelled_pairs, picked, ranking
from embedtrain.objective.schedule import Schedule, inverse
from embedtrain.objective.settings import above_zero, one_of
from embedtrain.types import Pairing


def cosine(left: Tensor, right: Tensor) -> Tensor:
    """Cosines (P,) of the rows of (P, d) and (P, d)."""
    return F.cosine_similarity(left, right, dim=-1)


class CoSENT(nn.Module):
    """Ranks the cosines of the pairs as their labels are ranked; only the order of the labels counts.

    With c_p the cosine of pair p, y_p its label: log(1 + Σ_{p,r: y_p < y_r} exp((c_p - c_r) / temperature)),
    the sum over pairs of one task, whose labels share a scale. Norms play no part.
    """

    def __init__(self, temperature: float | Schedule = 0.05, labels: Labels = "scores") -> None:
        """Set the temperature of the cosine differences and what orders the pairs.

        Args:
            temperature: divides the similarities, above 0.
            labels: "scores" ranks each query and its positive by the score of the row, rows without one being
                left out; "negatives" ranks every positive above every hard negative brought by its own query.

        Raises:
            InputError: if the temperature is not above 0 or `labels` is neither word.
        """
        super().__init__()
        self.temperature = above_zero("temperature", temperature, 0.05)
        one_of("labels", labels, LABELS)
        self.labels: Labels = labels
        self.needs = frozenset[str]({labels})

    similarity = staticmethod(cosine)

    def pick(self, pairing: Pairing) -> Ranking:
        """The pairs by their labels. Raises InputError if no pair carries one."""
        return ranking(labelled_pairs(self.labels, type(self).__name__, pairing), pairing)

    def forward(self, query: Tensor, docs: Tensor, pairing: Pairing, pairs: Ranking | None = None) -> Tensor:
        """The loss of the batch, a scalar >= 0; exactly 0, with zero gradient, where all labels are equal.

        As `Loss`; of the pairing it reads the target of each query, the scores, the owners.

        Raises:
            InputError: if no pair carries a label.
        """
        pairs = picked(self, query, docs, pairing) if pairs is None else pairs
        similar = self.similarity(query[pairs.query], docs[pairs.doc])  # (P,)
        return ranked(inverse(self.temperature, pairing.step) * similar, pairs)


def ranked(similarity: Tensor, pairs: Ranking) -> Tensor:
    """log(1 + Σ exp(s_p - s_r)) over the pairs p, r of one task with label_p < label_r.

    Sorted by label, the betters of a pair are one suffix, so this takes P log P time and P numbers where the
    definition takes P x P.

    Args:
        similarity: (P,) scaled.
        pairs: their order.
    """
    terms = [similarity.new_zeros(1)]
    tasks = (torch.split(part, [*pairs.sizes]) for part in (pairs.order, pairs.better))
    for order, better in zip(*tasks, strict=True):
        logits = similarity[order]
        suffix = torch.logcumsumexp(-logits.flip(0), dim=0).flip(0)
        suffix = torch.cat([suffix, suffix.new_full((1,), -torch.inf)])  # the last: no betters
        terms.append(logits + suffix[better])
    return torch.cat(terms).logsumexp(dim=0)
