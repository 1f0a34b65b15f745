"""Texts with hidden tokens twice: few for the encoder, and those and more for the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from embedtrain.data.order.draw import Pick
from embedtrain.model.inputs.tokenizer import TextTokenizer
from embedtrain.training.steps.texts.collate import MaskedBatch, MaskedCollate
from embedtrain.training.steps.texts.hiding import nested_words
from embedtrain.training.steps.texts.windows import read_texts
from embedtrain.types import Inputs


class TwiceMasked(NamedTuple):
    """The same texts as the encoder and as the decoder reads them."""

    masked: MaskedBatch
    decoder: Inputs
    decoder_labels: Tensor  # (M, T) int64 hidden token, or IGNORED

    @property
    def inputs(self) -> Inputs:
        """What the encoder reads."""
        return self.masked.inputs

    @property
    def rows(self) -> Tensor:
        """(B,) row numbers in the data."""
        return self.masked.rows


class TwiceCollate:
    """Whole words are hidden from the encoder, and these and more from the decoder.

    What takes the place of a hidden token is drawn for each of them.

    Args:
        process: texts to tokens.
        seed: of the draws.
        shares: of the ordinary tokens, hidden from the encoder and from the decoder.

    Raises:
        InputError: if the tokenizer has no mask token.
    """

    def __init__(self, process: TextTokenizer, *, seed: int, shares: tuple[float, float]) -> None:
        self._single = MaskedCollate(process, seed=seed, share=shares[0], step="smae")
        self._process, self._seed, self._shares = process, seed, shares

    def __call__(self, picks: Sequence[Pick], step: int) -> TwiceMasked:
        """The batch of a step."""
        texts = read_texts(picks, step, self._process, self._seed)
        hiding, both = self._single.hiding, []
        for text, one in enumerate(texts.read):
            ids, draw = np.array(one.ids), texts.generator(text)
            sets = nested_words(hiding.words(ids), self._shares, draw)
            both.append([hiding.hidden(ids, places, draw) for places in sets])
        masked = self._single.batch(texts, [first for first, _ in both], picks)
        decoder, labels = self._single.padded(self._process.pad(texts.read), [second for _, second in both])
        return TwiceMasked(masked, decoder, labels)
