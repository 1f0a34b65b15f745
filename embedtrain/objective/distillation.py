"""The deepest layer teaches the others: KL between softmaxes over embedding coordinates.

Both classes see un-normalised vectors, so their strength follows the norm the model emits. The divergence is
KL(teacher || student), mean over all R texts of the batch (queries, then documents).
"""

from __future__ import annotations

import math
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from embedtrain.types import Chosen, Embeddings, InputError, SubModel, distinct_layers


class Distill(Protocol):
    """What the sub-models of a step learn from its largest: a scalar, already weighted."""

    def __call__(self, texts: Embeddings, chosen: Chosen) -> Tensor:
        """Embeddings (L, R, D) of all queries, then all documents, at the chosen layers."""
        ...


class PrefixKL(nn.Module):
    """Every sub-model (l, d) against the same prefix of the deepest layer L, as Starbucks trains on STS.

    weight · factor · Σ_{(l,d): l < L} KL( softmax(e^L_{:d}) || softmax(e^l_{:d}) )

    Source: Zhuang et al. 2024, Starbucks, 2410.13230, and the authors' code, which differs from its text: the
    factor (called a temperature there) multiplies and does not divide, and gradients reach the teacher too.
    """

    def __init__(self, weight: float = 1.0, factor: float = 0.3, detach_teacher: bool = False) -> None:
        """Set the strength, weight · factor, and whether the teacher is held still.

        Raises:
            InputError: if weight or factor is negative.
        """
        super().__init__()
        self.weight = _strength("weight", weight)
        self.factor = _strength("factor", factor)
        self.detach_teacher = detach_teacher

    def forward(self, texts: Embeddings, chosen: Chosen) -> Tensor:
        """The weighted sum over the distinct sub-models above, a scalar >= 0; 0 where all share one layer."""
        total = texts.values.new_zeros(())
        deepest = max(distinct_layers(chosen))
        teachers: dict[int, Tensor] = {}
        for sub in dict.fromkeys(item.sub for item in chosen if item.sub.layer < deepest):
            if sub.dim not in teachers:
                teacher = texts.raw(SubModel(deepest, sub.dim))  # (R, d)
                teachers[sub.dim] = F.log_softmax(
                    teacher.detach() if self.detach_teacher else teacher, dim=-1
                )
            total = total + _kl(teachers[sub.dim], F.log_softmax(texts.raw(sub), dim=-1))
        return self.weight * self.factor * total


class LayerKL(nn.Module):
    """Every layer l < L of the step against the deepest at full width, as sentence-transformers 6.2 does.

    weight · temperature · Σ_l KL( softmax(sg(e^L) / temperature) || softmax(e^l / temperature) )

    Each layer counts once, however many dims it is trained at, and the sum is not divided by their number.
    Source: AdaptiveLayerLoss of sentence-transformers 6.2, after Li et al. 2024, 2DMSE, 2402.14776.
    """

    def __init__(self, weight: float = 1.0, temperature: float = 0.3) -> None:
        """Set the strength and the temperature of both softmaxes.

        Raises:
            InputError: if weight is negative or temperature is not above 0.
        """
        super().__init__()
        if not (temperature > 0 and math.isfinite(temperature)):
            raise InputError(f"temperature must be above 0 (0.3 is usual), got {temperature}")
        self.weight = _strength("weight", weight)
        self.temperature = temperature

    def forward(self, texts: Embeddings, chosen: Chosen) -> Tensor:
        """The weighted sum over the layers, a scalar >= 0; 0 where the step has one layer."""
        total = texts.values.new_zeros(())
        *students, deepest = distinct_layers(chosen)
        if not students:
            return total
        width = texts.values.shape[-1]
        teacher = F.log_softmax(
            texts.raw(SubModel(deepest, width)).detach() / self.temperature, dim=-1
        )  # (R, D)
        for layer in students:
            student = F.log_softmax(texts.raw(SubModel(layer, width)) / self.temperature, dim=-1)  # (R, D)
            total = total + _kl(teacher, student)
        return self.weight * self.temperature * total


def _kl(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean over rows of KL(teacher || student), both given as log-probabilities (R, d)."""
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def _strength(setting: str, value: float) -> float:
    if not (value >= 0 and math.isfinite(value)):
        raise InputError(f"{setting} must be 0 or more, got {value}")
    return value
