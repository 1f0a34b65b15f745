"""Texts with some of their tokens hidden: which ones is a function of (seed, step, row), whatever the rank.

Letters: B rows, M texts of them, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from embedtrain.data.order.draw import Pick
from embedtrain.model.inputs.tokenizer import TextTokenizer
from embedtrain.training.steps.texts.hiding import IGNORED, Hidden, Hiding, Places, nested_words
from embedtrain.training.steps.texts.windows import Drawn, read_texts
from embedtrain.types import Inputs

Choose = Callable[[Sequence[Places], float, np.random.Generator], Places]


def whole_words(words: Sequence[Places], share: float, draw: np.random.Generator) -> Places:
    """Places of whole words, together at most that share of the tokens."""
    return nested_words(words, [share], draw)[0]


def single_tokens(words: Sequence[Places], share: float, draw: np.random.Generator) -> Places:
    """Places of tokens, each drawn with that probability."""
    places = np.concatenate([*words, np.empty(0, np.int64)])
    return places[draw.random(len(places)) < share]


class MaskedBatch(NamedTuple):
    """Texts with hidden tokens, and what these were."""

    inputs: Inputs
    labels: Tensor  # (M, T) int64 hidden token, or IGNORED
    ordinary: Tensor  # (M, T) bool, no special token nor padding
    rows: Tensor  # (B,) int64 row numbers in the data

    @property
    def ids(self) -> Tensor:
        """(M, T) the tokens before any was hidden."""
        return torch.where(self.labels == IGNORED, self.inputs.values, self.labels)


class MaskedCollate:
    """The texts of rows, a share of the ordinary tokens of each hidden.

    Args:
        process: texts to tokens.
        seed: of the draws.
        share: of the tokens.
        step: name of the option that asks, for messages.
        choose: takes a text's words, the share and random numbers, and gives the places to hide.

    Raises:
        InputError: if the tokenizer has no mask token.
    """

    def __init__(
        self,
        process: TextTokenizer,
        *,
        seed: int,
        share: float,
        step: str,
        choose: Choose = whole_words,
    ) -> None:
        self.hiding = Hiding(process.tokenizer, step)
        self.process, self.seed = process, seed
        self._share, self._choose = share, choose

    def __call__(self, picks: Sequence[Pick], step: int) -> MaskedBatch:
        """The batch of a step."""
        return self.masked(read_texts(picks, step, self.process, self.seed), picks)

    def masked(self, texts: Drawn, picks: Sequence[Pick]) -> MaskedBatch:
        """The batch of texts that are read."""
        hidden = []
        for text, one in enumerate(texts.read):
            ids, draw = np.array(one.ids), texts.generator(text)
            places = self._choose(self.hiding.words(ids), self._share, draw)
            hidden.append(self.hiding.hidden(ids, places, draw))
        return self.batch(texts, hidden, picks)

    def batch(self, texts: Drawn, hidden: Sequence[Hidden], picks: Sequence[Pick]) -> MaskedBatch:
        """The batch of texts of which tokens are hidden."""
        plain = self.process.pad(texts.read)
        inputs, labels = self.padded(plain, hidden)
        ordinary = torch.from_numpy(self.hiding.ordinary(plain.values.numpy())) & plain.mask
        return MaskedBatch(inputs, labels, ordinary, torch.tensor([item.number for item in picks]))

    def padded(self, plain: Inputs, hidden: Sequence[Hidden]) -> tuple[Inputs, Tensor]:
        """Inputs and labels (M, T) of hidden tokens, padded as `plain` is."""
        ids, labels = plain.values.numpy().copy(), np.full(plain.values.shape, IGNORED)
        real = plain.mask.numpy()
        ids[real] = np.concatenate([one.ids for one in hidden])
        labels[real] = np.concatenate([one.labels for one in hidden])
        return plain._replace(values=torch.from_numpy(ids)), torch.from_numpy(labels)
