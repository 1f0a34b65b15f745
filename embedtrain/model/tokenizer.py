"""Texts to `Tokens`. A small object of its own, so that a data worker carries it without the model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase

from embedtrain.types import InputError, Role, Tokens


class TextTokenizer:
    """Texts of one role to right-padded `Tokens`, truncated to `max_length` tokens with the special ones.

    Raises:
        InputError: if the tokenizer has no padding token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        if tokenizer.pad_token_id is None:
            raise InputError("the tokenizer has no padding token: set pad_token in its tokenizer_config.json")
        self.tokenizer = tokenizer
        self.max_length = max_length

    def __call__(self, texts: Sequence[str], role: Role) -> Tokens:
        """(M, T) tokens, T the longest of these texts."""
        return self.pad(self.ids(texts, role))

    def ids(self, texts: Sequence[str], role: Role) -> list[list[int]]:
        """Token ids of each text, not padded."""
        del role  # both roles read alike until prompts tell them apart
        if not texts:
            return []
        encoded = self.tokenizer(
            list(texts), truncation=True, max_length=self.max_length, return_attention_mask=False
        )
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def pad(self, ids: Sequence[Sequence[int]]) -> Tokens:
        """Ragged ids as right-padded tokens (M, T) on the CPU."""
        longest = max((len(row) for row in ids), default=0)
        pad = self.tokenizer.pad_token_id
        lengths = torch.tensor([len(row) for row in ids], dtype=torch.int64)
        padded = [[*row, *[pad] * (longest - len(row))] for row in ids]
        return Tokens(
            ids=torch.tensor(padded, dtype=torch.int64).reshape(len(ids), longest),
            mask=torch.arange(longest) < lengths.unsqueeze(1),
            prompt_len=torch.zeros(len(ids), dtype=torch.int64),
        )
