"""Texts without most of their words, and the whole texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embedtrain.data.order.draw import Pick
from embedtrain.model.inputs.tokenizer import Read, TextTokenizer
from embedtrain.training.steps.texts.hiding import IGNORED, Hiding, Places
from embedtrain.training.steps.texts.windows import read_texts
from embedtrain.types import Inputs


class Thinned(NamedTuple):
    """Texts with words left out, and as the decoder reads and predicts them."""

    inputs: Inputs
    whole: Inputs
    labels: Tensor  # (M, T) int64 the token after each of the whole text, or IGNORED
    rows: Tensor  # (B,) int64 row numbers in the data


class ThinnedCollate:
    """Leaves words out of the texts of rows, each by its own draw, and at least one of each text in.

    Args:
        process: texts to tokens.
        seed: of the draws.
        share: of the words, left out.

    Raises:
        InputError: if the tokenizer has no mask token, which encoders have.
    """

    def __init__(self, process: TextTokenizer, *, seed: int, share: float) -> None:
        self._hiding = Hiding(process.tokenizer, "tsdae")
        self._process, self._seed, self._share = process, seed, share

    def __call__(self, picks: Sequence[Pick], step: int) -> Thinned:
        """The batch of a step."""
        texts = read_texts(picks, step, self._process, self._seed)
        kept = []
        for text, one in enumerate(texts.read):
            ids = np.array(one.ids)
            kept.append(thinned(ids, self._hiding.words(ids), self._share, texts.generator(text)))
        inputs = self._process.pad([Read(ids.tolist(), 0) for ids in kept])
        whole = self._process.pad(texts.read)
        return Thinned(inputs, whole, following(whole), torch.tensor([item.number for item in picks]))


def thinned(
    ids: NDArray[np.int64], words: Sequence[Places], share: float, draw: np.random.Generator
) -> NDArray[np.int64]:
    """The tokens of a text without those of some words, at least one of which stays."""
    gone = draw.random(len(words)) < share
    if len(words) and gone.all():
        gone[draw.integers(len(words))] = False
    left_out = [word for word, leaves in zip(words, gone.tolist(), strict=True) if leaves]
    return np.delete(ids, np.concatenate([*left_out, np.empty(0, np.int64)]))


def following(whole: Inputs) -> Tensor:
    """(M, T) the token after each real one, IGNORED after the last."""
    labels = torch.full_like(whole.values, IGNORED)
    real = whole.mask[:, :-1] & whole.mask[:, 1:]
    labels[:, :-1][real] = whole.values[:, 1:][real]
    return labels
