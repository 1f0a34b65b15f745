"""Texts to `Inputs`. A small object of its own, so that a data worker carries it without the model."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Literal, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from embedtrain.model.inputs.processor import padded
from embedtrain.model.inputs.prompts import prompt_end, text_start
from embedtrain.model.inputs.special_tokens import with_end_token, with_pad_token
from embedtrain.types import InputError, Inputs, Role

Side = Literal["right", "left"]


class Read(NamedTuple):
    """One text as the model reads it."""

    ids: list[int]
    prompt_len: int  # leading tokens that pooling skips

    @property
    def length(self) -> int:
        """Tokens."""
        return len(self.ids)


class TextTokenizer:
    """Texts, each after its prompt, to `Inputs`, truncated to `max_length` tokens with the special ones.

    Args:
        tokenizer: the Hugging Face tokenizer; it is copied where a setting must change.
        max_length: longest text in tokens, prompt and special ones included.
        prompts: what to put before every text of a role; other keys are for evaluation.
        include_prompt: whether the tokens of a prompt, and those before it, are pooled. A text without one
            is pooled whole either way.
        append_eos: end every text in the tokenizer's end token, where it does not do so itself.
        padding_side: where shorter texts are filled up. It changes no embedding.
        default_prompt: the name among `prompts` that sentence-transformers takes in plain `encode`; nothing
            here does, where a text has a role.

    Raises:
        InputError: if the tokenizer has no token to pad with, or none to end with when `append_eos`; for
            another padding side.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        *,
        prompts: Mapping[str, str] | None = None,
        include_prompt: bool = True,
        append_eos: bool = False,
        padding_side: Side = "right",
        default_prompt: str | None = None,
    ) -> None:
        if padding_side not in ("right", "left"):
            raise InputError(f"padding_side must be right or left, got {padding_side!r}")
        ready = with_pad_token(with_end_token(tokenizer) if append_eos else tokenizer)
        if ready.padding_side != padding_side:
            ready = copy.deepcopy(ready) if ready is tokenizer else ready
            ready.padding_side = padding_side
            ready.init_kwargs["padding_side"] = padding_side  # what is saved
        self.tokenizer = ready
        self.max_length = max_length
        self.prompts = dict(prompts or {})
        self.default_prompt = default_prompt
        self.include_prompt = include_prompt
        self.append_eos = append_eos
        self.padding_side = padding_side

    def __call__(
        self, texts: Sequence[str], role: Role, prompts: Sequence[str | None] | None = None
    ) -> Inputs:
        """(M, T) tokens, T the longest of these texts. Raises InputError as `read`."""
        return self.pad(self.read(texts, role, prompts))

    def read(
        self, texts: Sequence[str], role: Role, prompts: Sequence[str | None] | None = None
    ) -> list[Read]:
        """Each text after its prompt as token ids, not padded.

        A text that has no token at all (an empty one, for a tokenizer that adds none) is read as the padding
        token, so that it too has an embedding.

        Args:
            texts: M texts.
            role: decides the prompt of a text that has none of its own.
            prompts: one a text; None is the role's, "" is none.

        Raises:
            InputError: when prompts are not pooled and one leaves no room for its text, or the tokenizer
                cannot tell where it ends.
        """
        if not texts:
            return []
        chosen = self.chosen(len(texts), role, prompts)
        skips = not self.include_prompt and any(chosen)
        if skips and not self.tokenizer.is_fast:
            raise InputError(
                f"{type(self.tokenizer).__name__} does not say which characters a token has, so "
                "prompts cannot be left out of pooling: set include_prompt=true, or use a model with a fast "
                "tokenizer (tokenizer.json)"
            )
        encoded = self.tokenizer(
            [prompt + text for prompt, text in zip(chosen, texts, strict=True)],
            truncation=True,
            max_length=self.max_length,
            return_attention_mask=False,
            return_offsets_mapping=skips,
            return_special_tokens_mask=skips,
        )
        ids = [row or [self.tokenizer.pad_token_id] for row in encoded["input_ids"]]
        if not skips:
            return [Read(row, 0) for row in ids]
        spans = zip(encoded["offset_mapping"], encoded["special_tokens_mask"], strict=True)
        lengths = [
            self._prompt_len(offsets, added, prompt, text)
            for (offsets, added), prompt, text in zip(spans, chosen, texts, strict=True)
        ]
        return [Read(row, length) for row, length in zip(ids, lengths, strict=True)]

    def pad(self, read: Sequence[Read]) -> Inputs:
        """Ragged texts as tokens (M, T) on the CPU, padded on this tokenizer's side."""
        flat = np.fromiter(chain.from_iterable(row.ids for row in read), np.int64)
        lengths, prompt_len = [row.length for row in read], [row.prompt_len for row in read]
        return padded(flat, lengths, prompt_len, self.tokenizer.pad_token_id, self.padding_side == "left")

    def chosen(self, count: int, role: Role, prompts: Sequence[str | None] | None = None) -> list[str]:
        """The prompt before each of `count` texts: its own, else the role's."""
        own = self.prompts.get(role, "")
        asked = [None] * count if prompts is None else prompts
        return [own if prompt is None else prompt for prompt in asked]

    def _prompt_len(
        self, offsets: Sequence[tuple[int, int]], added: Sequence[int], prompt: str, text: str
    ) -> int:
        """Leading tokens of one text that pooling skips."""
        if not prompt:
            return 0
        start = text_start(offsets, len(prompt))
        if start is not None:
            return start
        if text.strip() and len(offsets) >= self.max_length:
            raise InputError(
                f"max_length {self.max_length} leaves no room for a text behind the prompt {prompt[:60]!r}, "
                f"which has {self._length(prompt)} tokens with the special ones: raise max_length, shorten "
                "the prompt, or set include_prompt=true"
            )
        return prompt_end(added)

    def _length(self, text: str) -> int:
        return len(self.tokenizer(text)["input_ids"])
