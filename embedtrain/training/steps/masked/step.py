"""Masked-language-model training at the plan's layers: one head, which is never shipped, for all of them.

Each layer that the plan chooses predicts the hidden tokens, so that a later cut there has trained too. The
dims of the plan play no part.

Letters: M texts, T tokens, m hidden tokens of this rank, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from embedtrain.model.encoder import Encoder
from embedtrain.training.steps.protocol import Parts
from embedtrain.training.steps.texts.collate import MaskedBatch, MaskedCollate, single_tokens
from embedtrain.training.steps.texts.head import head_of
from embedtrain.training.steps.texts.hiding import IGNORED
from embedtrain.training.steps.texts.step import Loss, Right, TextStep, texts_of
from embedtrain.types import InputError, SubModel


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
        share_of("share", self.share)

    def step(self, parts: Parts) -> TextStep:
        """The step for an encoder."""
        return TextStep(MaskedTokens(parts.encoder, seed=parts.seed, share=self.share), "masked")


class MaskedTokens:
    """A `Method` that hides tokens and predicts them from the states of the backbone.

    Args:
        encoder: what is trained, with its tokenizer; its pooling plays no part.
        seed: of the hidden tokens, and of a new head.
        share: of the tokens of a text that are hidden.

    Raises:
        InputError: if the encoder reads no texts or has no mask token.
    """

    metric = "accuracy"

    def __init__(self, encoder: Encoder, *, seed: int, share: float = 0.15) -> None:
        process = texts_of(encoder, "masked")
        self.collate = MaskedCollate(process, seed=seed, share=share, step="masked", choose=single_tokens)
        self.module = head_of(encoder, seed)
        self.widest, self.dim = encoder.backbone.hidden_size, encoder.width

    def losses(
        self, batch: MaskedBatch, encoder: Encoder, subs: Sequence[SubModel], share: float
    ) -> list[Loss]:
        """The cross entropy of the hidden tokens after the layer of each sub-model."""
        labels, predicted = self._predicted(batch, encoder, subs)
        sums = {
            layer: F.cross_entropy(logits, labels, reduction="sum") for layer, logits in predicted.items()
        }
        return [Loss("masked", sub, 1.0, sums[sub.layer], len(labels)) for sub in subs]

    def right(
        self, batch: MaskedBatch, encoder: Encoder, subs: Sequence[SubModel]
    ) -> Mapping[SubModel, Right]:
        """Hidden tokens whose best guess is right."""
        labels, predicted = self._predicted(batch, encoder, subs)
        hits = {layer: (logits.argmax(-1) == labels).sum() for layer, logits in predicted.items()}
        return {sub: Right(hits[sub.layer], len(labels)) for sub in subs}

    def _predicted(
        self, batch: MaskedBatch, encoder: Encoder, subs: Sequence[SubModel]
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """The hidden tokens (m,), and logits (m, V) of them after each layer."""
        hidden = batch.labels != IGNORED  # (M, T)
        layers = tuple(sorted({sub.layer for sub in subs}))
        states = encoder.backbone(batch.inputs, layers)
        predicted = {layer: self.module(one[hidden]) for layer, one in zip(layers, states, strict=True)}
        return batch.labels[hidden], predicted


def share_of(name: str, value: float) -> float:
    """`value`. Raises InputError if it is not between 0 and 1."""
    if not 0 < value < 1:
        raise InputError(f"{name} must be between 0 and 1, got {value}")
    return value
