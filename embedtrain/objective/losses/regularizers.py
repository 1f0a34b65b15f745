"""Losses that shape the space: unrelated texts orthogonal (OPL), all texts spread out (GOR).

Letters: B queries, C documents, n texts, d coordinates, P pairs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from embedtrain.objective.losses.pairs import LABELS, Labels, labelled_pairs, picked, there
from embedtrain.objective.losses.scored import cosine
from embedtrain.objective.schedule import Schedule, at
from embedtrain.objective.settings import one_of, some_weight
from embedtrain.types import Pairing


class Labelled(NamedTuple):
    """Pairs and what their cosines should be."""

    query: Tensor  # (P,) int64
    doc: Tensor  # (P,) int64
    label: Tensor  # (P,) float


class OPL(nn.Module):
    """Orthogonal projection loss: mean over pairs of (cos(query, doc) - label)²; works with one pair a batch.

    Label 0 means orthogonal, not opposite. A batch's value is the mean of its pairs' own, so batches of one,
    as documents of 32k tokens force them, lose nothing. Norms play no part.

    Source: Saad-Falcon et al. 2024, LoCo and M2-BERT, 2402.07440. Their code casts cosine and label to
    bfloat16 for any maximum length but 512, which loses the gradient near the optimum; here they stay as they
    are. It is not the class-level loss of Ranasinghe et al. 2021 that shares its name.
    """

    def __init__(self, labels: Labels = "negatives") -> None:
        """Set where labels come from.

        Args:
            labels: "negatives" gives each query and its positive 1, repeated as often as the query brought
                hard negatives, and each of these 0, so that both weigh the same; queries without hard
                negatives are left out. "scores" takes the scores of the rows, 0..1.

        Raises:
            InputError: if it is neither word.
        """
        super().__init__()
        one_of("labels", labels, LABELS)
        self.labels: Labels = labels
        self.needs = frozenset({labels})

    def pick(self, pairing: Pairing) -> Labelled:
        """The pairs and their labels. Raises InputError if no pair carries one."""
        pairs = labelled_pairs(self.labels, "OPL", pairing, even=True)
        return Labelled(*there(pairing, *pairs[:3]))

    def forward(self, query: Tensor, docs: Tensor, pairing: Pairing, pairs: Labelled | None = None) -> Tensor:
        """The mean over the pairs of the batch, a scalar >= 0.

        As `Loss`; of the pairing it reads targets, and owners or scores.

        Raises:
            InputError: if no pair carries a label.
        """
        pairs = picked(self, query, docs, pairing) if pairs is None else pairs
        if len(pairs.query) == 0:  # the rules took every hard negative out
            return (query.sum() + docs.sum()) * 0
        similar = cosine(query[pairs.query], docs[pairs.doc])  # (P,)
        return F.mse_loss(similar, pairs.label.to(similar.dtype))


class GOR(nn.Module):
    """Global orthogonal regularisation: cosines of the batch's texts as those of random directions.

    For the queries and for the documents, with M1 and M2 the mean cosine and mean squared cosine of two
    different rows: mean_weight · M1² + second_moment_weight · max(0, M2 - 1/d), and the mean of both sides.
    Meant as a term beside a contrastive loss. Source: Zhang et al. 2017, Learning Spread-out Local Feature
    Descriptors, 1708.06320, as sentence-transformers' GlobalOrthogonalRegularizationLoss.

    Both moments come from Σ x and the Gram matrix Σ x xᵀ (d x d): no n x n matrix is built. Documents are one
    side, positives and hard negatives together; a text that stands twice counts as two.
    """

    needs: frozenset[str] = frozenset()

    def __init__(
        self, mean_weight: float | Schedule = 1.0, second_moment_weight: float | Schedule = 1.0
    ) -> None:
        """Set the weights.

        Args:
            mean_weight: of the squared mean cosine.
            second_moment_weight: of the excess of the mean squared cosine over 1/d.

        Raises:
            InputError: if one is negative or both are 0.
        """
        super().__init__()
        some_weight(mean_weight=mean_weight, second_moment_weight=second_moment_weight)
        self.mean_weight, self.second_moment_weight = mean_weight, second_moment_weight

    def forward(self, query: Tensor, docs: Tensor, pairing: Pairing) -> Tensor:
        """The mean of both sides, a scalar >= 0; a side with one text adds 0.

        As `Loss`; of the pairing only the step is looked at.
        """
        return (self._side(query, pairing.step) + self._side(docs, pairing.step)) / 2

    def _side(self, texts: Tensor, step: int) -> Tensor:
        """Both terms of one set of texts (n, d)."""
        x = F.normalize(texts, dim=-1)
        lengths = x.square().sum(-1)  # (n,) 1, but 0 for a zero vector
        others = max(len(x) * (len(x) - 1), 1)
        first = (x.sum(0).square().sum() - lengths.sum()) / others
        second = ((x.T @ x).square().sum() - lengths.square().sum()) / others
        excess = F.relu(second - 1 / x.shape[1])
        return at(self.mean_weight, step) * first.square() + at(self.second_moment_weight, step) * excess
