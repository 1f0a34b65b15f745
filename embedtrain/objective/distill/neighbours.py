"""Larger sub-models teach smaller ones who is near to whom: KL between softmaxes over the texts of a batch.

Letters: R texts, d coordinates.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from embedtrain.objective.distill.kl import divergence
from embedtrain.objective.settings import above_zero, not_negative
from embedtrain.objective.teachers import Teachers, checked, teachers_of
from embedtrain.types import Chosen, Embeddings, SubModel


class NeighbourKL(nn.Module):
    """Each text's cosines with all other texts of the batch, as a smaller sub-model and as a larger see them.

    weight · Σ_m c_m · mean over texts of KL( sm(sg S_t / temperature) || sm(S_m / temperature) )

    c_m is the plan's weight, S_m(i, j) the cosine of texts i and j != i, t the teacher. No labels are needed:
    R texts teach R (R - 1) cosines. So it also serves scored pairs, which have none of the rankings that
    `ScoreKL` compares.

    The form is that of stochastic neighbour embedding (Hinton and Roweis 2002), the targets being a teacher's
    cosines as in similarity-preserving distillation (Tung and Mori 2019, 1907.09682).
    """

    needs: frozenset[str] = frozenset()

    def __init__(
        self, weight: float = 1.0, temperature: float = 0.05, teachers: Teachers = "largest"
    ) -> None:
        """Set the strength, the temperature of both softmaxes, and who teaches.

        Args:
            weight: 0 or more.
            temperature: divides the cosines, above 0.
            teachers: the largest sub-model, the next larger one, or all larger ones in equal shares.

        Raises:
            InputError: if weight is negative, temperature not above 0, or teachers another word.
        """
        super().__init__()
        self.weight = not_negative("weight", weight)
        self.temperature = above_zero("temperature", temperature, 0.05)
        self.teachers = checked(teachers)

    def forward(self, texts: Embeddings, chosen: Chosen, guide: Tensor | None = None) -> Tensor:
        """The weighted sum over the sub-models, a scalar >= 0; 0 of one sub-model or one text.

        Arguments are those of `Distill`; the guide is not looked at.
        """
        total, weights = texts.values.new_zeros(()), dict[SubModel, float]()
        for sub, weight in chosen:
            weights[sub] = weights.get(sub, 0.0) + weight
        subs = sorted(weights)
        seen = {sub: self._neighbours(texts.raw(sub)) for sub in subs}
        for sub in subs:
            above = teachers_of(sub, subs, self.teachers)
            for one in above:
                total = total + weights[sub] / len(above) * divergence(seen[one].detach(), seen[sub])
        return self.weight * total

    def _neighbours(self, vectors: Tensor) -> Tensor:
        """Log-probabilities (R, R - 1) of the other texts, of vectors (R, d)."""
        unit = F.normalize(vectors, dim=-1)
        count = len(unit)
        # behind the first number of the diagonal, the next ones are the last of rows of R + 1
        rows = (unit @ unit.T).flatten()[1:].view(-1, count + 1)  # (R - 1, R + 1)
        cosines = rows[:, :-1].reshape(count, max(count - 1, 0))
        return F.log_softmax(cosines / self.temperature, dim=-1)
