"""InfoNCE: cross-entropy of the target among the allowed documents (Oord et al. 2018, 1807.03748).

Letters: B queries, C documents, d coordinates of the sub-model.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedtrain.types import InputError, Pairing

LARGEST_SCALE = 100.0  # CLIP's bound (Radford et al. 2021, 2103.00020, section 2.5)


class InfoNCE(nn.Module):
    """In-batch and hard negatives under one temperature.

    With s_ic = cos(query_i, doc_c) / temperature, A_i the documents allowed to query i and t_i its target:

        query -> docs:  f_i = log Σ_{c in A_i} exp(s_ic) - s_{i,t_i}
        doc -> queries: r_i = log Σ_{j: t_i in A_j} exp(s_{j,t_i}) - s_{i,t_i}

    The loss is mean f, or (mean f + mean r) / 2 when two-sided. The second runs over the targets alone: a
    hard negative belongs to no query. A query that shares i's target is a second positive and stays out of
    r_i. Temperature 0.05 is the scale 20 of sentence-transformers' MultipleNegativesRankingLoss.
    """

    def __init__(
        self, temperature: float = 0.05, learn_temperature: bool = False, two_sided: bool = False
    ) -> None:
        """Set the temperature (> 0) and what is summed.

        Args:
            temperature: divides cosines; where learned, the value to begin with.
            learn_temperature: train log(1 / temperature) as CLIP does, held to 1 / temperature <= 100.
            two_sided: add the direction from the targets to the queries.

        Raises:
            InputError: if the temperature is not above 0, or is learned and below 0.01.
        """
        super().__init__()
        if not (temperature > 0 and math.isfinite(temperature)):
            raise InputError(f"temperature must be above 0 (0.05 is usual), got {temperature}")
        if learn_temperature and temperature < 1 / LARGEST_SCALE:
            raise InputError(
                f"temperature must be at least {1 / LARGEST_SCALE} to be learned, got {temperature}: "
                "raise it or set learn_temperature=false"
            )
        self.two_sided = two_sided
        self.fixed_temperature = temperature
        self.log_scale: nn.Parameter | None = None
        if learn_temperature:
            self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    def scale(self) -> Tensor | float:
        """1 / temperature, a scalar of at most 100 where it is learned.

        The bound cuts the value, not the gradient: a plain clamp would leave an overshooting temperature
        without a gradient, and so at the bound for good.
        """
        if self.log_scale is None:
            return 1 / self.fixed_temperature
        excess = (self.log_scale - math.log(LARGEST_SCALE)).clamp(min=0).detach()
        return torch.exp(self.log_scale - excess)

    def forward(self, query: Tensor, docs: Tensor, pairing: Pairing) -> Tensor:
        """The mean loss of the queries, a scalar >= 0.

        Args:
            query: (B, d) prefixes, not normalised.
            docs: (C, d) prefixes, not normalised.
            pairing: target and allowed documents of each query.
        """
        cosine = F.normalize(query, dim=-1) @ F.normalize(docs, dim=-1).T  # (B, C)
        logits = cosine * self.scale()
        target, allowed = pairing.target, pairing.allowed
        forward = _cross_entropy(logits, allowed, target)
        if not self.two_sided:
            return forward
        itself = torch.arange(len(target), device=target.device)  # (B,)
        shared = target[:, None] == target[None, :]  # (B, B), True on the diagonal
        asked = allowed[:, target].T & ~shared  # (B, B) row: target, column: query
        asked[itself, itself] = True
        return (forward + _cross_entropy(logits[:, target].T, asked, itself)) / 2


def _cross_entropy(logits: Tensor, allowed: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of the rows over their allowed columns."""
    return F.cross_entropy(torch.where(allowed, logits, -torch.inf), target)
