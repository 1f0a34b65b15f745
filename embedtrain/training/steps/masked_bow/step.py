"""Hidden tokens from their states, and the bag of words of a text from its embedding, cut as it will ship.

Ma et al. 2024 (2401.11248) for sub-models: layer l predicts the hidden tokens, and the first d coordinates of
the pooled vector there the bag of words of the whole text. There is no decoder: a sub-model costs one
product of its vectors with the vocabulary.

Letters: M texts, T tokens, m hidden tokens of this rank, H hidden width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch.nn.functional as F

from embedtrain.model.encoder import Encoder
from embedtrain.objective.settings import not_negative
from embedtrain.training.steps.masked.step import share_of
from embedtrain.training.steps.protocol import Parts
from embedtrain.training.steps.texts.bag import bag_loss, bag_of, bag_recall
from embedtrain.training.steps.texts.collate import MaskedBatch, MaskedCollate
from embedtrain.training.steps.texts.head import head_of
from embedtrain.training.steps.texts.hiding import IGNORED
from embedtrain.training.steps.texts.prefixes import encoded
from embedtrain.training.steps.texts.step import Loss, Right, TextStep, texts_of
from embedtrain.types import SubModel


@dataclass(frozen=True)
class MaskedBow:
    """Settings of hidden tokens and bags of words.

    Args:
        share: of the tokens of a text that are hidden, whole words together.
        bow: factor of the bags at the first step.
        bow_end: factor at the last step; in between it follows half a cosine.

    Raises:
        InputError: if the share is not between 0 and 1, or a factor below 0.
    """

    share: float = 0.30
    bow: float = 1.0
    bow_end: float = 0.1

    def __post_init__(self) -> None:
        share_of("share", self.share)
        not_negative("bow", self.bow)
        not_negative("bow_end", self.bow_end)

    def factor(self, share: float) -> float:
        """The factor of the bags when `share` of the run, in 0..1, is over."""
        return self.bow_end + (self.bow - self.bow_end) * 0.5 * (1 + math.cos(math.pi * share))

    def step(self, parts: Parts) -> TextStep:
        """The step for an encoder."""
        return TextStep(MaskedBags(parts.encoder, self, seed=parts.seed), "masked_bow")


class MaskedBags:
    """A `Method`: one forward, hidden tokens at each layer, a bag at each sub-model.

    Args:
        encoder: what is trained.
        settings: shares and factors.
        seed: of the hidden tokens, and of a new head.

    Raises:
        InputError: if the encoder reads no texts or has no mask token.
    """

    metric, dim = "bow_recall", None

    def __init__(self, encoder: Encoder, settings: MaskedBow, *, seed: int) -> None:
        process = texts_of(encoder, "masked_bow")
        self.collate = MaskedCollate(process, seed=seed, share=settings.share, step="masked_bow")
        self.module = head_of(encoder, seed)
        self.widest = encoder.backbone.hidden_size
        self._settings = settings

    def losses(
        self, batch: MaskedBatch, encoder: Encoder, subs: Sequence[SubModel], share: float
    ) -> list[Loss]:
        """Cross entropy of the hidden tokens of its layer, and of the bag, of each sub-model."""
        hidden = batch.labels != IGNORED  # (M, T)
        labels, found = batch.labels[hidden], encoded(encoder, batch.inputs, subs)
        masked = {
            layer: F.cross_entropy(self.module(found.states[layer][hidden]), labels, reduction="sum")
            for layer in sorted({sub.layer for sub in subs})
        }
        bag = bag_of(batch.ids, batch.ordinary, self.module.vocabulary)
        factor, losses = self._settings.factor(share), []
        for sub in subs:
            bags = bag_loss(self.module(found.vector(sub)), bag)
            losses.append(Loss("masked", sub, 1.0, masked[sub.layer], len(labels)))
            losses.append(Loss("bow", sub, factor, bags, len(bag)))
        return losses

    def right(
        self, batch: MaskedBatch, encoder: Encoder, subs: Sequence[SubModel]
    ) -> Mapping[SubModel, Right]:
        """Distinct tokens of a text among as many best guesses from its vector."""
        found = encoded(encoder, batch.inputs, subs)
        bag = bag_of(batch.ids, batch.ordinary, self.module.vocabulary)
        of = (bag > 0).sum()
        return {sub: Right(bag_recall(self.module(found.vector(sub)), bag), of) for sub in subs}
