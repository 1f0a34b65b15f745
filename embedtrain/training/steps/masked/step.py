"""Masked-language-model training at the plan's layers: one head, which is never shipped, for all of them.

Each layer that the plan chooses predicts the hidden tokens, so that a later cut there has trained too; the
loss is their mean, weighted as the plan weighs the layers. The dims of the plan play no part.

Letters: M texts, T tokens, m hidden tokens of this rank, H hidden width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedtrain.data.module import DataModule
from embedtrain.model.encoder import Encoder
from embedtrain.model.inputs.tokenizer import TextTokenizer
from embedtrain.objective.plan import Plan
from embedtrain.ranks import world_size
from embedtrain.training.distributed import sum_over_ranks
from embedtrain.training.steps.masked.collate import IGNORED, MaskedBatch, MaskedCollate
from embedtrain.training.steps.masked.head import head_of
from embedtrain.training.steps.protocol import Context, Parts, Report, Validated
from embedtrain.types import InputError, SubModel, distinct_layers


@dataclass(frozen=True)
class Masked:
    """Settings of masked-language-model training.

    Args:
        share: of the tokens of a text that are hidden.

    Raises:
        InputError: if it is not between 0 and 1.
    """

    share: float = 0.15

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise InputError(f"share must be between 0 and 1, got {self.share}")

    def step(self, parts: Parts) -> MaskedStep:
        """The step for an encoder."""
        return MaskedStep(parts.encoder, seed=parts.seed, share=self.share)


class MaskedStep:
    """A `Step` that hides tokens and predicts them from the states of the backbone.

    Args:
        encoder: what is trained, with its tokenizer; its pooling plays no part.
        seed: of the hidden tokens, and of a new head.
        share: of the tokens of a text that are hidden.

    Raises:
        InputError: if the encoder reads no texts or has no mask token.
    """

    def __init__(self, encoder: Encoder, *, seed: int, share: float = 0.15) -> None:
        if not isinstance(encoder.process, TextTokenizer):
            raise InputError("step=masked hides tokens of texts, and this encoder reads something else")
        self.collate = self.validation_collate = MaskedCollate(encoder.process, seed=seed, share=share)
        self.module = head_of(encoder, seed)
        self._width = encoder.width
        self._counts: dict[int, Tensor] = {}  # layer -> right ones, hidden ones

    def check(self, data: DataModule, plan: Plan, encoder: Encoder, ranks: int) -> None:
        """Any rows and any plan will do."""

    def to(self, device: torch.device) -> None:
        """All of it is in `module`."""

    def loss(self, batch: MaskedBatch, context: Context) -> Tensor:
        """Mean cross entropy of the hidden tokens of all ranks.

        Raises:
            InputError: if the weights are spread over ranks.
        """
        if context.agree is not None:
            raise InputError("step=masked needs whole weights on each rank: use it without trainer.shard")
        weights = dict.fromkeys(distinct_layers(context.chosen), 0.0)
        for sub, weight in context.chosen:
            weights[sub.layer] += weight
        predicted = self._predicted(batch, cast(Encoder, context.encoder), tuple(weights))
        labels = batch.labels[batch.labels != IGNORED]
        sums = torch.stack([F.cross_entropy(logits, labels, reduction="sum") for logits in predicted])  # (L,)
        count = sum_over_ranks(labels.new_tensor(len(labels), dtype=sums.dtype)).clamp(min=1)
        share = sums.new_tensor(list(weights.values())) / sum(weights.values())  # (L,)
        means = sum_over_ranks(sums) / count
        parts = [(SubModel(layer, self._width), mean) for layer, mean in zip(weights, means, strict=True)]
        context.report(Report((share * means).sum(), batch.rows, parts))
        return (share * sums).sum() * world_size() / count  # DDP divides by the number of ranks

    def _predicted(self, batch: MaskedBatch, encoder: Encoder, layers: Sequence[int]) -> list[Tensor]:
        """Logits (m, V) of the hidden tokens after each layer."""
        hidden = batch.labels != IGNORED  # (M, T)
        return [self.module(states[hidden]) for states in encoder.backbone(batch.inputs, layers)]

    def validate(self, batch: MaskedBatch, encoder: nn.Module, sub_models: Sequence[SubModel]) -> None:
        """Count the hidden tokens, and those that each layer predicts."""
        layers = sorted({sub.layer for sub in sub_models})
        labels = batch.labels[batch.labels != IGNORED]
        for layer, logits in zip(layers, self._predicted(batch, cast(Encoder, encoder), layers), strict=True):
            right = (logits.argmax(-1) == labels).sum()
            new = torch.stack([right, right.new_tensor(len(labels)), right.new_tensor(len(batch.rows))])
            self._counts[layer] = self._counts.get(layer, torch.zeros_like(new)) + new

    def validated(self, sub_models: Sequence[SubModel], device: torch.device) -> Validated:
        """Accuracy of the hidden tokens at each layer."""
        counts, self._counts = self._counts, {}
        sums = {layer: sum_over_ranks(own.to(device).double()).tolist() for layer, own in counts.items()}
        scores = {
            SubModel(layer, self._width): right / max(hidden, 1) for layer, (right, hidden, _) in sums.items()
        }
        return Validated("accuracy", scores, int(next(iter(sums.values()))[2]))

    def facts(self) -> dict[str, float]:
        """Nothing is added up over steps."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Nothing: every draw is a function of the step."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""
