"""Each planned (layer, dim) predicts hidden tokens, and its vector helps a weak decoder to predict more.

Zhuang et al. 2024 (2410.13230, Starbucks): the loss of (l, d) is the mean of the cross entropies of
 - the tokens hidden from the encoder, by the head from the first d coordinates of the states after layer l,
 - the tokens hidden from the decoder, which is one block. It reads the embeddings of its own text, the first
   replaced by the transform of the first d coordinates of the text's vector.
The vector is what the pooling makes: with pooling=cls the state of the first token, as in the authors' code.

Letters: M texts, T tokens, m hidden tokens of this rank, H hidden width, E width of token embeddings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from embedtrain.model.encoder import Encoder
from embedtrain.settings.checks import at_least_one
from embedtrain.training.steps.masked.step import share_of
from embedtrain.training.steps.protocol import Parts
from embedtrain.training.steps.smae.collate import TwiceCollate, TwiceMasked
from embedtrain.training.steps.texts.decoder import copied_blocks, lifted
from embedtrain.training.steps.texts.head import head_of
from embedtrain.training.steps.texts.hiding import IGNORED
from embedtrain.training.steps.texts.prefixes import encoded
from embedtrain.training.steps.texts.step import Loss, Right, TextStep, texts_of
from embedtrain.types import InputError, SubModel


@dataclass(frozen=True)
class Smae:
    """Settings of matryoshka masked auto-encoding.

    Args:
        share: of the tokens of a text that are hidden from the encoder, whole words together.
        decoder_share: of those hidden from the decoder, the same ones among them.
        decoder_layers: blocks of the decoder, copied from the first of the backbone at the start.

    Raises:
        InputError: if a share is not between 0 and 1, the second below the first, or there is no block.
    """

    share: float = 0.2
    decoder_share: float = 0.4
    decoder_layers: int = 1

    def __post_init__(self) -> None:
        share_of("share", self.share)
        if share_of("decoder_share", self.decoder_share) < self.share:
            raise InputError(
                f"decoder_share must be at least share ({self.share}), got {self.decoder_share}: what is "
                "hidden from the encoder is hidden from the decoder too"
            )
        at_least_one(decoder_layers=self.decoder_layers)

    def step(self, parts: Parts) -> TextStep:
        """The step for an encoder."""
        return TextStep(AutoEncoding(parts.encoder, self, seed=parts.seed), "smae")


class _Predicted(NamedTuple):
    """What one sub-model predicts, of how many vocabulary entries each."""

    sub: SubModel
    encoder: Tensor  # (m, V) logits of tokens hidden from the encoder
    decoder: Tensor  # the same of the decoder


class AutoEncoding(nn.Module):
    """A `Method`: head, decoder, and what they predict.

    Args:
        encoder: what is trained.
        settings: shares and blocks.
        seed: of the hidden tokens, and of a new head.

    Raises:
        InputError: if the encoder reads no texts or has no mask token.
    """

    metric, dim = "accuracy", None

    def __init__(self, encoder: Encoder, settings: Smae, *, seed: int) -> None:
        super().__init__()
        process = texts_of(encoder, "smae")
        self.collate = TwiceCollate(process, seed=seed, shares=(settings.share, settings.decoder_share))
        self.head = head_of(encoder, seed)
        self.blocks = copied_blocks(encoder.backbone, settings.decoder_layers)
        self.lift = lifted(self.head, encoder.backbone.hidden_size, seed)
        self.widest = encoder.backbone.hidden_size

    @property
    def module(self) -> nn.Module:
        """Itself."""
        return self

    def losses(
        self, batch: TwiceMasked, encoder: Encoder, subs: Sequence[SubModel], share: float
    ) -> list[Loss]:
        """Half the cross entropy of each of the two, of each sub-model."""
        labels, more = _labels(batch)
        losses = []
        for sub, first, second in self._predicted(batch, encoder, subs):
            own = F.cross_entropy(first, labels, reduction="sum")
            losses.append(Loss("masked", sub, 0.5, own, len(labels)))
            again = F.cross_entropy(second, more, reduction="sum")
            losses.append(Loss("decoder", sub, 0.5, again, len(more)))
        return losses

    def right(
        self, batch: TwiceMasked, encoder: Encoder, subs: Sequence[SubModel]
    ) -> Mapping[SubModel, Right]:
        """Tokens hidden from the decoder whose best guess is right."""
        _, labels = _labels(batch)
        return {
            sub: Right((second.argmax(-1) == labels).sum(), len(labels))
            for sub, _, second in self._predicted(batch, encoder, subs)
        }

    def _predicted(
        self, batch: TwiceMasked, encoder: Encoder, subs: Sequence[SubModel]
    ) -> Iterator[_Predicted]:
        found = encoded(encoder, batch.inputs, subs)
        hidden, more = batch.masked.labels != IGNORED, batch.decoder_labels != IGNORED
        for sub in subs:
            first = self.lift(self.head.transform(found.vector(sub)))  # (M, H)
            states = encoder.backbone.decoded(batch.decoder, self.blocks, first)
            yield _Predicted(sub, self.head(found.tokens(sub, hidden)), self.head(states[more]))


def _labels(batch: TwiceMasked) -> tuple[Tensor, Tensor]:
    """Tokens hidden from the encoder and from the decoder, (m,) each."""
    first, second = batch.masked.labels, batch.decoder_labels
    return first[first != IGNORED], second[second != IGNORED]
