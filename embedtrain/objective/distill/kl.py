"""Deeper layers teach the others: KL between softmaxes over embedding coordinates.

Both classes see un-normalised vectors, so their strength follows the norm the model emits. The divergence is
KL(teacher || student), mean over all R texts of the batch (queries, then documents).
"""

from __future__ import annotations

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from embedtrain.objective.settings import above_zero, not_negative
from embedtrain.objective.teachers import Teachers, checked, deeper
from embedtrain.types import Chosen, Embeddings, InputError, SubModel, distinct_layers


class Distill(Protocol):
    """What the sub-models of a step learn from its largest: a scalar, already weighted."""

    def __call__(self, texts: Embeddings, chosen: Chosen, guide: Tensor | None = None) -> Tensor:
        """A scalar of R texts: all queries of the batch, then all documents.

        Args:
            texts: (L, R, D) of every layer in `chosen`, not normalised.
            chosen: sub-models and weights of the step.
            guide: (R, G) unit vectors of a guide model for the same texts, where there is one.
        """
        ...


class PrefixKL(nn.Module):
    """Every sub-model (l, d) against the same prefix of the deepest layer L, as Starbucks trains on STS.

    weight · factor · Σ_{(l,d): l < L} KL( softmax(e^L_{:d}) || softmax(e^l_{:d}) )

    Source: Zhuang et al. 2024, Starbucks, 2410.13230, and the authors' code, which differs from its text: the
    factor (called a temperature there) multiplies and does not divide, and gradients reach the teacher too.
    """

    needs: frozenset[str] = frozenset()

    def __init__(
        self,
        weight: float = 1.0,
        factor: float = 0.3,
        detach_teacher: bool = False,
        teachers: Teachers = "largest",
    ) -> None:
        """Set the strength, weight · factor, whether teachers are held still, and who they are.

        Raises:
            InputError: if weight or factor is negative, or teachers another word.
        """
        super().__init__()
        self.weight = not_negative("weight", weight)
        self.factor = not_negative("factor", factor)
        self.detach_teacher = detach_teacher
        self.teachers = checked(teachers)

    def forward(self, texts: Embeddings, chosen: Chosen, guide: Tensor | None = None) -> Tensor:
        """The weighted sum over the distinct sub-models above, a scalar >= 0; 0 where all share one layer."""
        total, layers = texts.values.new_zeros(()), distinct_layers(chosen)
        known: dict[SubModel, Tensor] = {}
        for sub in dict.fromkeys(item.sub for item in chosen if item.sub.layer < layers[-1]):
            student = F.log_softmax(texts.raw(sub), dim=-1)
            above = [SubModel(layer, sub.dim) for layer in deeper(sub.layer, layers, self.teachers)]
            for one in above:
                if one not in known:
                    teacher = texts.raw(one)  # (R, d)
                    known[one] = F.log_softmax(teacher.detach() if self.detach_teacher else teacher, dim=-1)
                total = total + divergence(known[one], student) / len(above)
        return self.weight * self.factor * total


class LayerKL(nn.Module):
    """Every layer l < L of the step against the deepest at full width.

    weight · temperature^power · Σ_l KL( softmax(e^L / temperature) || softmax(e^l / temperature) )

    Each layer counts once, however many dims it is trained at, and the sum is not divided by their number.
    Source: AdaptiveLayerLoss of sentence-transformers, after Li et al. 2024, 2DMSE, 2402.14776. Settings:

        sentence-transformers 6.2:      temperature 0.3, power 1, teacher detached (the defaults here)
        sentence-transformers 3.3:      temperature 0.3, power 1, not detached
        AnglE v0.3.10 (2DMSE):          temperature 1, power 1, not detached
        AnglE v0.3.5 (2DMSE):           temperature 1, power 2, not detached
    """

    needs: frozenset[str] = frozenset()

    def __init__(
        self,
        weight: float = 1.0,
        temperature: float = 0.3,
        power: int = 1,
        detach_teacher: bool = True,
        teachers: Teachers = "largest",
    ) -> None:
        """Set the strength, the temperature of both softmaxes, and whether the teacher is held still.

        Args:
            weight: 0 or more.
            temperature: above 0.
            power: of the temperature that multiplies the divergence, 0, 1 or 2; 2 keeps the size of the
                gradient when the temperature changes (Hinton et al. 2015, 1503.02531).
            detach_teacher: train the smaller layers alone.
            teachers: the deepest layer, the next deeper one, or all deeper ones in equal shares.

        Raises:
            InputError: on a number outside its range, or another word.
        """
        super().__init__()
        self.temperature = above_zero("temperature", temperature, 0.3)
        self.weight = not_negative("weight", weight)
        if power not in (0, 1, 2):
            raise InputError(f"power must be 0, 1 or 2, got {power}")
        self.factor = weight * temperature**power
        self.detach_teacher = detach_teacher
        self.teachers = checked(teachers)

    def forward(self, texts: Embeddings, chosen: Chosen, guide: Tensor | None = None) -> Tensor:
        """The weighted sum over the layers, a scalar >= 0; 0 where the step has one layer."""
        total, layers = texts.values.new_zeros(()), distinct_layers(chosen)
        known: dict[int, Tensor] = {}
        for layer in layers[:-1]:
            student = F.log_softmax(self._scaled(texts, layer), dim=-1)  # (R, D)
            above = deeper(layer, layers, self.teachers)
            for one in above:
                if one not in known:
                    teacher = self._scaled(texts, one)
                    known[one] = F.log_softmax(teacher.detach() if self.detach_teacher else teacher, dim=-1)
                total = total + divergence(known[one], student) / len(above)
        return self.factor * total

    def _scaled(self, texts: Embeddings, layer: int) -> Tensor:
        return texts.raw(SubModel(layer, texts.values.shape[-1])) / self.temperature


def divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean over rows of KL(teacher || student), both given as log-probabilities (R, d)."""
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True)
