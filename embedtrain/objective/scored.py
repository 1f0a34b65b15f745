"""Losses for pairs that carry a graded similarity.

CoSENT: Su 2022, https://kexue.fm/archives/8847; the formula as in sentence-transformers' CoSENTLoss.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedtrain.types import InputError, Pairing


class CoSENT(nn.Module):
    """Ranks the cosines of the pairs as their scores are ranked; only the order of the scores counts.

    With c_i = cos(query_i, its target) and y_i the score of the pair:
    log(1 + Σ_{i,j: y_i < y_j} exp(scale (c_i - c_j))). Documents that are no target play no part.
    """

    def __init__(self, scale: float = 20.0) -> None:
        """Set the factor of the cosine differences.

        Raises:
            InputError: if the scale is not above 0.
        """
        super().__init__()
        if not (scale > 0 and math.isfinite(scale)):
            raise InputError(f"scale must be above 0 (20 is usual), got {scale}")
        self.scale = scale

    def forward(self, query: Tensor, docs: Tensor, pairing: Pairing) -> Tensor:
        """The loss of the batch, a scalar >= 0; exactly 0, with zero gradient, where all scores are equal.

        Args:
            query: (B, d) prefixes, not normalised.
            docs: (C, d) prefixes, not normalised.
            pairing: the target of each query and the score of that pair.

        Raises:
            InputError: if the pairs carry no scores.
        """
        if pairing.scores is None:
            raise InputError(
                'CoSENT needs a "score" on every training row and these have none: '
                "add the scores, or train unscored pairs with InfoNCE"
            )
        cosine = F.cosine_similarity(query, docs[pairing.target], dim=-1)  # (B,)
        score, order = pairing.scores.sort()  # (B,) ascending
        logits = self.scale * cosine[order]  # (B,)
        # log Σ exp(-logit) over all later pairs: sorted, every pair's betters are one suffix, so B log B time
        # and B numbers where the definition takes B x B.
        suffix = torch.logcumsumexp(-logits.flip(0), dim=0).flip(0)  # (B,)
        suffix = torch.cat([suffix, suffix.new_full((1,), -torch.inf)])  # (B + 1,) the last: no betters
        better = torch.searchsorted(score, score, right=True)  # (B,) first pair with a strictly higher score
        terms = logits + suffix[better]  # (B,)
        return torch.cat([terms.new_zeros(1), terms]).logsumexp(dim=0)
