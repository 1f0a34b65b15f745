"""The largest sub-model teaches the others how it ranks documents: KL between softmaxes over similarities.

Letters: b queries, C documents.
"""

from __future__ import annotations

from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedtrain.objective.schedule import Schedule, at
from embedtrain.objective.settings import above_zero, not_negative, one_of
from embedtrain.objective.similarity.nested import Similarity
from embedtrain.objective.teachers import Teachers, checked
from embedtrain.types import RowFacts


class ScoreKL(nn.Module):
    """Each query's documents, as a smaller sub-model and as the largest see them.

        weight · KL( softmax(sg(teacher) / temperature) || softmax(student / temperature) )

    over the documents allowed to the query, its positive among them. The divergence is not multiplied by the
    temperature, nor by its square. With dot products, temperature 1 and weight 1 this is what Starbucks
    trains on retrieval (Zhuang et al. 2024, 2410.13230, and the authors' code), where all documents of the
    batch are allowed.
    """

    def __init__(
        self,
        weight: float | Schedule = 1.0,
        temperature: float | Schedule = 0.05,
        similarity: Similarity = "cosine",
        teachers: Teachers = "largest",
    ) -> None:
        """Set the strength and the softmaxes.

        Args:
            weight: strength, 0 or more.
            temperature: divides the similarities of both, above 0.
            similarity: "cosine", or "dot" of the vectors as the model pools them.
            teachers: the largest sub-model, the next larger one, or all larger ones in equal shares.

        Raises:
            InputError: if weight is negative, temperature not above 0, or a word another one.
        """
        super().__init__()
        one_of("similarity", similarity, get_args(Similarity))
        self.weight = not_negative("weight", weight)
        self.temperature = above_zero("temperature", temperature, 0.05)
        self.similarity = similarity
        self.teachers = checked(teachers)

    def rows(self, student: Tensor, teacher: Tensor, allowed: Tensor, facts: RowFacts) -> Tensor:
        """(b,), each 0 or more, 0 where both rank alike.

        Args:
            student: (b, C) similarities of the sub-model.
            teacher: (b, C) of a larger one; no gradient reaches it.
            allowed: (b, C) bool, True somewhere in each row.
            facts: the step.
        """
        temperature = above_zero("temperature", at(self.temperature, facts.step), 0.05)
        wanted = _log_softmax(teacher.detach() / temperature, allowed)  # (b, C)
        found = _log_softmax(student / temperature, allowed)
        weight = not_negative("weight", at(self.weight, facts.step))
        return weight * (wanted.exp() * (wanted - found)).sum(1)


def _log_softmax(logits: Tensor, allowed: Tensor) -> Tensor:
    """Log-probabilities over the allowed columns of each row; elsewhere a number so low that its exp is 0.

    A finite one: minus infinity would leave infinity - infinity in the divergence, which is nan.
    """
    lowest = torch.finfo(logits.dtype).min / 4
    return F.log_softmax(logits.masked_fill(~allowed, -torch.inf), dim=1).masked_fill(~allowed, lowest)
