"""Texts with hidden tokens, whole for the decoder, and what each place of the decoder sees.

Letters: M texts, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embedtrain.data.order.draw import Pick
from embedtrain.model.inputs.tokenizer import TextTokenizer
from embedtrain.training.steps.texts.collate import MaskedBatch, MaskedCollate
from embedtrain.training.steps.texts.hiding import Places, nested_words
from embedtrain.training.steps.texts.windows import read_texts
from embedtrain.types import Inputs

SEEN = 3  # number of the draw of what is seen
MOST = 256  # different sets of hidden words of a text


class Seen(NamedTuple):
    """Texts as the encoder reads them, and what the decoder sees of them."""

    masked: MaskedBatch
    visible: Tensor  # (M, T, T) bool: place i sees the token at place j

    @property
    def inputs(self) -> Inputs:
        """What the encoder reads."""
        return self.masked.inputs

    @property
    def whole(self) -> Inputs:
        """The texts before any token was hidden."""
        return self.masked.inputs._replace(values=self.masked.ids)

    @property
    def ordinary(self) -> Tensor:
        """(M, T) bool, the tokens that the decoder predicts: all but special ones."""
        return self.masked.ordinary

    @property
    def rows(self) -> Tensor:
        """(B,) row numbers in the data."""
        return self.masked.rows


class SeenCollate:
    """Hides words from the encoder, and other words from each place of the decoder.

    A place never sees its own token; it sees all special tokens.

    Args:
        process: texts to tokens.
        seed: of the draws.
        shares: of the ordinary tokens, hidden from the encoder and from a place of the decoder.
        step: name of the option that asks, for messages.

    Raises:
        InputError: if the tokenizer has no mask token.
    """

    def __init__(self, process: TextTokenizer, *, seed: int, shares: tuple[float, float], step: str) -> None:
        self._masked = MaskedCollate(process, seed=seed, share=shares[0], step=step)
        self._process, self._seed, self._share = process, seed, shares[1]

    def __call__(self, picks: Sequence[Pick], step: int) -> Seen:
        """The batch of a step."""
        texts = read_texts(picks, step, self._process, self._seed)
        batch = self._masked.masked(texts, picks)
        real = batch.inputs.mask.numpy()
        visible = np.zeros((*real.shape, real.shape[1]), bool)  # (M, T, T)
        for text, one in enumerate(texts.read):
            columns = np.flatnonzero(real[text])
            words = self._masked.hiding.words(np.array(one.ids))
            own = seen_by_place(len(columns), words, self._share, texts.generator(text, SEEN))
            visible[text][np.ix_(columns, columns)] = own
        return Seen(batch, torch.from_numpy(visible))


def seen_by_place(
    length: int, words: Sequence[Places], share: float, draw: np.random.Generator
) -> NDArray[np.bool_]:
    """What each place of a text sees, (T, T): one of at most 256 drawn sets of words, and never itself."""
    sets = np.ones((min(length, MOST), length), bool)
    for one in sets:
        (hidden,) = nested_words(words, [share], draw)
        one[hidden] = False
    visible: NDArray[np.bool_] = sets[draw.integers(len(sets), size=length)]
    visible[np.arange(length), np.arange(length)] = False
    return visible
