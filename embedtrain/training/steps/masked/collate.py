"""Texts with some of their tokens hidden: which ones is a function of (seed, step, row), whatever the rank.

Devlin et al. 2019 (1810.04805), appendix A: of the hidden tokens 80 % become the mask token, 10 % another
token and 10 % stay. Special tokens are neither hidden nor drawn.

Letters: B rows, M texts of them, T tokens, V ordinary tokens of the vocabulary.
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
from embedtrain.types import InputError, Inputs

IGNORED = -100  # label of a token that is not to be predicted, as transformers has it


class MaskedBatch(NamedTuple):
    """Texts with hidden tokens, and what these were."""

    inputs: Inputs
    labels: Tensor  # (M, T) int64 hidden token, or IGNORED
    rows: Tensor  # (B,) int64 row numbers in the data


class MaskedCollate:
    """The texts of rows, tokens of them hidden.

    Args:
        process: texts to tokens.
        seed: of the draws.
        share: of the ordinary tokens of a text, hidden each by its own draw.

    Raises:
        InputError: if the tokenizer has no mask token.
    """

    def __init__(self, process: TextTokenizer, *, seed: int, share: float) -> None:
        tokenizer = process.tokenizer
        if tokenizer.mask_token_id is None:
            raise InputError(
                f"step=masked needs a tokenizer with a mask token, and {type(tokenizer).__name__} has none: "
                "choose an encoder such as BERT or ModernBERT, or another step"
            )
        self._process, self._seed, self._share = process, seed, share
        self._mask_id: int = tokenizer.mask_token_id
        self._special = np.array(sorted(tokenizer.all_special_ids))
        self._ordinary = np.setdiff1d(np.arange(tokenizer.vocab_size), self._special)  # (V,)

    def __call__(self, picks: Sequence[Pick], step: int) -> MaskedBatch:
        """The batch of a step: of each row its query, and the positive and negatives that take part."""
        texts: list[str] = []
        draws: list[np.random.Generator] = []
        for item in picks:
            own = _texts(item)
            texts += own
            draws += [self._draw(step, item.number, place) for place in range(len(own))]
        inputs = self._process(texts, "document", [""] * len(texts))
        ids, labels = inputs.values.numpy().copy(), np.full(inputs.values.shape, IGNORED)
        for row, draw in enumerate(draws):
            self._hide(ids[row], labels[row], inputs.mask[row].numpy(), draw)
        rows = torch.tensor([item.number for item in picks])
        return MaskedBatch(inputs._replace(values=torch.from_numpy(ids)), torch.from_numpy(labels), rows)

    def _draw(self, step: int, row: int, place: int) -> np.random.Generator:
        return np.random.default_rng((self._seed, step, row, place))

    def _hide(
        self,
        ids: NDArray[np.int64],
        labels: NDArray[np.int64],
        real: NDArray[np.bool_],
        draw: np.random.Generator,
    ) -> None:
        """Hide tokens of one text (T,) in place; as many draws as it has tokens, whatever the padding."""
        places = np.flatnonzero(real & ~np.isin(ids, self._special))
        hidden = places[draw.random(len(places)) < self._share]
        labels[hidden] = ids[hidden]
        how = draw.random(len(hidden))
        others = hidden[(how >= 0.8) & (how < 0.9)]
        ids[hidden[how < 0.8]] = self._mask_id
        ids[others] = self._ordinary[draw.integers(len(self._ordinary), size=len(others))]


def _texts(pick: Pick) -> list[str]:
    example = pick.example
    positives = example.positives[pick.positive : pick.positive + 1]
    return [example.query, *positives, *(example.negatives[number] for number in pick.negatives)]
