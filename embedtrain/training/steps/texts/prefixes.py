"""What the encoder gives a method: states after layers, and vectors of them, by sub-model.

Letters: M texts, T tokens, D embedding width, H hidden width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from embedtrain.model.encoder import Encoder
from embedtrain.training.steps.texts.head import prefix
from embedtrain.types import Embeddings, Inputs, SubModel


class Encoded(NamedTuple):
    """Texts after each layer."""

    states: dict[int, Tensor]  # layer -> (M, T, H)
    vectors: Embeddings  # pooled, as they ship

    def tokens(self, sub: SubModel, which: Tensor) -> Tensor:
        """States (m, H) of some tokens, which are (M, T) bool, beyond the dim of the sub-model 0."""
        states = self.states[sub.layer]
        return prefix(states[which], sub.dim, states.shape[-1])

    def vector(self, sub: SubModel) -> Tensor:
        """The embedding of each text, not normalised, filled up with zeros to (M, H)."""
        return prefix(self.vectors.raw(sub), sub.dim, self.states[sub.layer].shape[-1])


def encoded(encoder: Encoder, inputs: Inputs, subs: Sequence[SubModel]) -> Encoded:
    """Texts at the layers of some sub-models, by one forward."""
    layers = tuple(sorted({sub.layer for sub in subs}))
    asked = encoder.asked(layers)
    states = encoder.backbone(inputs, asked)
    values = encoder.pooled(states, inputs.mask, inputs.prompt_len, layers)
    return Encoded(dict(zip(asked, states, strict=True)), Embeddings(values, layers))
