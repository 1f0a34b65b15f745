"""RetroMAE and DupMAE: hidden tokens, a weak decoder that needs the text's vector, and bags of words.

Xiao et al. 2022 (2205.12035) and 2023 (2305.02564), for every planned (layer, dim):
 - the tokens hidden from the encoder, by the head from the first d coordinates of the states after layer l,
 - all tokens of the text, by the head from the enhanced decoder, which is given the first d coordinates of
   the text's vector, filled up with zeros,
 - DupMAE: the bag of words, from the largest logits over the places of the text after the first.
The vector is what the pooling makes: with pooling=cls the state of the first token, as in the authors' code.

Letters: M texts, T tokens, m tokens predicted on this rank, H hidden width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from embedtrain.model.encoder import Encoder
from embedtrain.objective.settings import not_negative
from embedtrain.training.steps.masked.step import share_of
from embedtrain.training.steps.protocol import Parts
from embedtrain.training.steps.retromae.collate import Seen, SeenCollate
from embedtrain.training.steps.retromae.decoder import EnhancedDecoder
from embedtrain.training.steps.texts.bag import bag_loss, bag_of
from embedtrain.training.steps.texts.head import Head, head_of, prefix
from embedtrain.training.steps.texts.hiding import IGNORED
from embedtrain.training.steps.texts.prefixes import Encoded, encoded
from embedtrain.training.steps.texts.step import Loss, Right, TextStep, texts_of
from embedtrain.types import SubModel

CLOSED = -1000.0  # logit of a place that does not count for the bag
TEXTS = 8  # whose logits of all places are in memory at a time


@dataclass(frozen=True)
class RetroMAE:
    """Settings of RetroMAE.

    Args:
        share: of the tokens of a text that are hidden from the encoder, whole words together.
        decoder_share: of those hidden from each place of the decoder.

    Raises:
        InputError: if a share is not between 0 and 1.
    """

    share: float = 0.3
    decoder_share: float = 0.5

    def __post_init__(self) -> None:
        share_of("share", self.share)
        share_of("decoder_share", self.decoder_share)

    def step(self, parts: Parts) -> TextStep:
        """The step for an encoder."""
        shares = self.share, self.decoder_share
        return TextStep(Retro(parts.encoder, shares, seed=parts.seed, step="retromae"), "retromae")


@dataclass(frozen=True)
class DupMAE:
    """Settings of DupMAE.

    Args:
        share: of the tokens of a text that are hidden from the encoder, whole words together.
        decoder_share: of those hidden from each place of the decoder.
        bow: factor of the bag of words.

    Raises:
        InputError: if a share is not between 0 and 1, or the factor below 0.
    """

    share: float = 0.3
    decoder_share: float = 0.5
    bow: float = 0.1

    def __post_init__(self) -> None:
        share_of("share", self.share)
        share_of("decoder_share", self.decoder_share)
        not_negative("bow", self.bow)

    def step(self, parts: Parts) -> TextStep:
        """The step for an encoder."""
        shares = self.share, self.decoder_share
        return TextStep(Retro(parts.encoder, shares, seed=parts.seed, step="dupmae", bow=self.bow), "dupmae")


class Retro(nn.Module):
    """A `Method`: head and enhanced decoder, and with `bow` the bag of words of token maxima.

    Args:
        encoder: what is trained.
        shares: of the tokens hidden from the encoder, and from each place of the decoder.
        seed: of the hidden tokens, the decoder, and a new head.
        step: name of the option, for messages.
        bow: factor of the bag; None is RetroMAE, which has none and makes its queries otherwise.

    Raises:
        InputError: if the encoder reads no texts or has no mask token.
    """

    metric, dim = "accuracy", None

    def __init__(
        self,
        encoder: Encoder,
        shares: tuple[float, float],
        *,
        seed: int,
        step: str,
        bow: float | None = None,
    ) -> None:
        super().__init__()
        process = texts_of(encoder, step)
        self.collate = SeenCollate(process, seed=seed, shares=shares, step=step)
        self.head = head_of(encoder, seed)
        longest = process.max_length
        self.decoder = EnhancedDecoder(encoder.backbone, embedded=bow is not None, longest=longest, seed=seed)
        self.widest = encoder.backbone.hidden_size
        self._bow = bow

    @property
    def module(self) -> nn.Module:
        """Itself."""
        return self

    def losses(self, batch: Seen, encoder: Encoder, subs: Sequence[SubModel], share: float) -> list[Loss]:
        """Cross entropies of the hidden tokens and of all, and the bag, of each sub-model."""
        hidden = batch.masked.labels != IGNORED
        labels, every = batch.masked.labels[hidden], batch.masked.ids[batch.ordinary]
        found = encoded(encoder, batch.inputs, subs)
        bag = None if self._bow is None else bag_of(batch.masked.ids, batch.ordinary, self.head.vocabulary)
        losses = []
        for sub in subs:
            own = F.cross_entropy(self.head(found.tokens(sub, hidden)), labels, reduction="sum")
            logits = self._decoded(batch, encoder, found, sub)
            decoded = F.cross_entropy(logits, every, reduction="sum")
            losses.append(Loss("masked", sub, 1.0, own, len(labels)))
            losses.append(Loss("decoder", sub, 1.0, decoded, len(every)))
            if bag is not None and self._bow is not None:
                largest = largest_logits(self.head, found.states[sub.layer], sub.dim, batch.inputs.mask)
                losses.append(Loss("bow", sub, self._bow, bag_loss(largest, bag), len(bag)))
        return losses

    def right(self, batch: Seen, encoder: Encoder, subs: Sequence[SubModel]) -> Mapping[SubModel, Right]:
        """Tokens that the decoder guesses rightly."""
        every, found = batch.masked.ids[batch.ordinary], encoded(encoder, batch.inputs, subs)
        hits = {sub: (self._decoded(batch, encoder, found, sub).argmax(-1) == every).sum() for sub in subs}
        return {sub: Right(right, len(every)) for sub, right in hits.items()}

    def _decoded(self, batch: Seen, encoder: Encoder, found: Encoded, sub: SubModel) -> Tensor:
        """Logits (m, V) of all ordinary tokens."""
        states = self.decoder(encoder.backbone, batch.whole, found.vector(sub), batch.visible)
        logits: Tensor = self.head(states[batch.ordinary])
        return logits


def largest_logits(head: Head, states: Tensor, dim: int, mask: Tensor) -> Tensor:
    """(M, V) the largest logit of each token over the places of a text after its first.

    The logits of some texts at a time are in memory, also in backward, where they are computed again.

    Args:
        head: states to logits.
        states: (M, T, H).
        dim: coordinates of the states that are read.
        mask: (M, T) real tokens.
    """
    counted = mask & (mask.cumsum(1) > 1)

    def largest(some: Tensor, places: Tensor) -> Tensor:
        logits = head(prefix(some, dim, some.shape[-1]))  # (m, T, V)
        closed: Tensor = logits.masked_fill(~places[..., None], CLOSED)
        return closed.max(1).values

    pairs = zip(torch.split(states, TEXTS), torch.split(counted, TEXTS), strict=True)
    return torch.cat([checkpoint(largest, *pair, use_reentrant=False) for pair in pairs])
