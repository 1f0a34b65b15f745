"""One loss over many sub-models: the weighted sum of Matryoshka training, and distillation on top.

Kusupati et al. 2022, Matryoshka Representation Learning, 2205.13147, equation 1: Σ_m c_m ℓ(e_{:m}), a sum and
not a mean, so adding sub-models raises the effective learning rate.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from embedtrain.objective.distillation import Distill
from embedtrain.types import Chosen, Embeddings, Pairing, SubModel


class Loss(Protocol):
    """Prefixes and their pairing to a scalar; the loss normalises, if it wants unit vectors."""

    def __call__(self, query: Tensor, docs: Tensor, pairing: Pairing) -> Tensor:
        """Un-normalised prefixes (B, d) and (C, d) to the mean loss of the batch."""
        ...


class ObjectiveValue(NamedTuple):
    """What a step minimises, and what it is made of."""

    total: Tensor  # scalar, to be differentiated
    parts: tuple[tuple[SubModel, Tensor], ...]  # detached loss of each distinct sub-model before its weight
    distillation: Tensor | None  # detached, as it entered the total


class Objective(nn.Module):
    """Σ weight · loss(sub-model) + distillation, over what the plan chose for this step."""

    def __init__(self, loss: Loss, distill: Distill | None = None) -> None:
        """Join a loss with what the smaller sub-models learn from the largest; modules are registered."""
        super().__init__()
        self.loss = loss
        self.distill = distill

    def forward(
        self, query: Embeddings, docs: Embeddings, pairing: Pairing, chosen: Chosen
    ) -> ObjectiveValue:
        """The objective of one batch.

        Args:
            query: (L, B, D) un-normalised, of every layer in `chosen`.
            docs: (L, C, D) likewise.
            pairing: shared by all sub-models.
            chosen: the sub-models and weights of this step; one that is listed twice counts with the sum of
                its weights and is computed once.

        Raises:
            ValueError: if nothing was chosen.
        """
        if not chosen:
            raise ValueError("a plan must choose at least one sub-model per step")
        weights: dict[SubModel, float] = {}
        for sub, weight in chosen:
            weights[sub] = weights.get(sub, 0.0) + weight
        # Autocast would run the similarities in bf16: three digits, where a temperature of 0.05 needs six.
        with torch.autocast(query.values.device.type, enabled=False):
            query, docs = _at_least_float32(query), _at_least_float32(docs)
            losses = {sub: self.loss(query.raw(sub), docs.raw(sub), pairing) for sub in weights}
            total = torch.stack([weights[sub] * loss for sub, loss in losses.items()]).sum()
            distillation = None
            if self.distill is not None:
                texts = Embeddings(
                    torch.cat([query.values, docs.values], dim=1), query.layers
                )  # (L, B + C, D)
                distillation = self.distill(texts, chosen)
                total = total + distillation
        parts = tuple((sub, loss.detach()) for sub, loss in losses.items())
        return ObjectiveValue(total, parts, None if distillation is None else distillation.detach())


def _at_least_float32(embeddings: Embeddings) -> Embeddings:
    """bf16 and fp16 raised to float32; float32 and float64 as they are."""
    if embeddings.values.dtype in (torch.float32, torch.float64):
        return embeddings
    return Embeddings(embeddings.values.float(), embeddings.layers)
