"""Texts to `Tokens`. A small object of its own, so that a data worker carries it without the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from embedtrain.types import InputError, Role, Tokens


class Read(NamedTuple):
    """One text as the model reads it."""

    ids: list[int]
    prompt_len: int  # leading tokens that pooling skips


class TextTokenizer:
    """Texts of one role to right-padded `Tokens`, truncated to `max_length` tokens with the special ones.

    Raises:
        InputError: if the tokenizer has no padding token.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        *,
        prompts: Mapping[Role, str] | None = None,
    ) -> None:
        if tokenizer.pad_token_id is None:
            raise InputError("the tokenizer has no padding token: set pad_token in its tokenizer_config.json")
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.prompts: dict[Role, str] = dict(prompts or {})

    def __call__(
        self, texts: Sequence[str], role: Role, prompts: Sequence[str | None] | None = None
    ) -> Tokens:
        """(M, T) tokens, T the longest of these texts."""
        return self.pad(self.read(texts, role, prompts))

    def read(
        self, texts: Sequence[str], role: Role, prompts: Sequence[str | None] | None = None
    ) -> list[Read]:
        """Each text after its prompt as token ids, not padded."""
        if not texts:
            return []
        own = self.prompts.get(role, "")
        chosen = [own if prompt is None else prompt for prompt in prompts or [None] * len(texts)]
        encoded = self.tokenizer(
            [prompt + text for prompt, text in zip(chosen, texts, strict=True)],
            truncation=True,
            max_length=self.max_length,
            return_attention_mask=False,
        )
        return [Read(ids, 0) for ids in encoded["input_ids"]]

    def pad(self, read: Sequence[Read]) -> Tokens:
        """Ragged texts as right-padded tokens (M, T) on the CPU."""
        longest = max((len(row.ids) for row in read), default=0)
        pad = self.tokenizer.pad_token_id
        lengths = torch.tensor([len(row.ids) for row in read], dtype=torch.int64)
        padded = [[*row.ids, *[pad] * (longest - len(row.ids))] for row in read]
        return Tokens(
            ids=torch.tensor(padded, dtype=torch.int64).reshape(len(read), longest),
            mask=torch.arange(longest) < lengths.unsqueeze(1),
            prompt_len=torch.tensor([row.prompt_len for row in read], dtype=torch.int64),
        )
