"""A text from the vector of what is left of it: word by word, by a decoder that has nothing else.

Wang et al. 2021 (2104.06979), for every planned (layer, dim): the decoder is given the first d coordinates of
the vector of the thinned text, filled up with zeros, and predicts each token of the whole text from those
before it. Attention to a single vector gives that vector to every place, so it is a sum here. The authors
tie the decoder to the encoder; here it has layers of its own, so that it fits every family.

Letters: M texts, T tokens, m tokens predicted on this rank, H hidden width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedtrain.model.encoder import Encoder
from embedtrain.settings.checks import at_least_one
from embedtrain.training.steps.masked.step import share_of
from embedtrain.training.steps.protocol import Parts
from embedtrain.training.steps.texts.decoder import DecoderLayer
from embedtrain.training.steps.texts.head import head_of
from embedtrain.training.steps.texts.hiding import IGNORED
from embedtrain.training.steps.texts.prefixes import encoded
from embedtrain.training.steps.texts.step import Loss, Right, TextStep, texts_of
from embedtrain.training.steps.tsdae.collate import Thinned, ThinnedCollate
from embedtrain.types import SubModel


@dataclass(frozen=True)
class Tsdae:
    """Settings of the denoising auto-encoder.

    Args:
        share: of a text's words to leave out.
        decoder_layers: of the decoder.

    Raises:
        InputError: if the share is not between 0 and 1, or there is no layer.
    """

    share: float = 0.6
    decoder_layers: int = 1

    def __post_init__(self) -> None:
        share_of("share", self.share)
        at_least_one(decoder_layers=self.decoder_layers)

    def step(self, parts: Parts) -> TextStep:
        """The step for an encoder."""
        return TextStep(Denoising(parts.encoder, self, seed=parts.seed), "tsdae")


class CausalLayer(nn.Module):
    """A layer whose places see those before them, and the vector."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        config = encoder.backbone.model.config
        self.layer = DecoderLayer(config)
        self.given = nn.Linear(encoder.backbone.hidden_size, encoder.backbone.hidden_size)
        nn.init.normal_(self.given.weight, std=0.02)
        nn.init.zeros_(self.given.bias)
        self.norm = nn.LayerNorm(encoder.backbone.hidden_size, eps=self.layer.norm.eps)

    def forward(self, state: Tensor, visible: Tensor, vector: Tensor) -> Tensor:
        """(M, T, H) from a state (M, T, H), what each place sees (M, T, T), and a vector (M, H)."""
        given = self.given(vector)[:, None]
        found: Tensor = self.layer(state, state, visible, lambda seen: self.norm(seen + given))
        return found


class Denoising(nn.Module):
    """A `Method`: head and decoder.

    Args:
        encoder: what is trained.
        settings: share and layers.
        seed: of what is left out, of the decoder, and of a new head.

    Raises:
        InputError: if the encoder reads no texts or is no encoder.
    """

    metric, dim = "accuracy", None

    def __init__(self, encoder: Encoder, settings: Tsdae, *, seed: int) -> None:
        super().__init__()
        process = texts_of(encoder, "tsdae")
        self.collate = ThinnedCollate(process, seed=seed, share=settings.share)
        self.head = head_of(encoder, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.ModuleList(CausalLayer(encoder) for _ in range(settings.decoder_layers))
        self.layers.to(encoder.backbone.model.dtype)
        self.widest = encoder.backbone.hidden_size

    @property
    def module(self) -> nn.Module:
        """Itself."""
        return self

    def losses(self, batch: Thinned, encoder: Encoder, subs: Sequence[SubModel], share: float) -> list[Loss]:
        """The cross entropy of all tokens but the first of each text."""
        labels = batch.labels[batch.labels != IGNORED]
        return [
            Loss("decoder", sub, 1.0, F.cross_entropy(logits, labels, reduction="sum"), len(labels))
            for sub, logits in self._predicted(batch, encoder, subs).items()
        ]

    def right(self, batch: Thinned, encoder: Encoder, subs: Sequence[SubModel]) -> Mapping[SubModel, Right]:
        """Tokens whose best guess is right."""
        labels = batch.labels[batch.labels != IGNORED]
        return {
            sub: Right((logits.argmax(-1) == labels).sum(), len(labels))
            for sub, logits in self._predicted(batch, encoder, subs).items()
        }

    def _predicted(
        self, batch: Thinned, encoder: Encoder, subs: Sequence[SubModel]
    ) -> dict[SubModel, Tensor]:
        """Logits (m, V) of each sub-model."""
        wanted, found = batch.labels != IGNORED, encoded(encoder, batch.inputs, subs)
        tokens = encoder.backbone.entering(batch.whole)  # (M, T, H)
        count = tokens.shape[1]
        before = torch.ones(count, count, dtype=torch.bool, device=tokens.device).tril()
        visible = before & batch.whole.mask[:, None]  # (M, T, T)
        predicted = {}
        for sub in subs:
            state = tokens
            for layer in self.layers:
                state = layer(state, visible, found.vector(sub))
            predicted[sub] = self.head(state[wanted])
        return predicted
