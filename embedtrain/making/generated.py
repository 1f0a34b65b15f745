"""Queries that a language model writes for passages: any seq2seq or causal model of transformers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch

from embedtrain.devices import device_of
from embedtrain.making.documents import Document, joined, passages
from embedtrain.making.maker import Pair
from embedtrain.model.locate import locate
from embedtrain.types import InputError

PROMPT = "Write a search query that this text answers. Text: {text} Query:"


class Generated:
    """A query that a model writes for a passage, and the passage (Dai et al. 2022, Promptagator, 2209.11755).

    Args:
        path: folder or hub name of the model.
        prompt: what it reads, {text} and {title} filled in.
        per_document: queries of a document, each of a passage that is drawn.
        words: about how many words a passage has.
        max_new_tokens: of a query.
        temperature: of the draw of tokens; 0 takes the likeliest.
        top_p: share of the probability that is drawn from.
        dtype: float32, bfloat16 or float16, of its weights.
        device: as `device_of`.

    Raises:
        InputError: for a number out of range, a prompt without {text}, a device that is not there.
    """

    name, slow = "generated", True

    def __init__(
        self,
        path: str,
        prompt: str = PROMPT,
        per_document: int = 2,
        words: int = 150,
        max_new_tokens: int = 48,
        temperature: float = 1.0,
        top_p: float = 0.95,
        dtype: str = "float32",
        device: str = "auto",
    ) -> None:
        if not isinstance(path, str) or not path:
            raise InputError(f"path must be a folder or hub name, got {path!r}")
        if min(per_document, words, max_new_tokens) < 1 or temperature < 0 or not 0 < top_p <= 1:
            raise InputError(
                "per_document, words, max_new_tokens must be 1 or more, temperature 0 or more, top_p above 0 "
                f"and at most 1, got {per_document}, {words}, {max_new_tokens}, {temperature}, {top_p}"
            )
        try:
            whole = prompt.format(text="", title="") != prompt and "{text}" in prompt
        except (KeyError, IndexError, ValueError):
            whole = False
        if not whole:
            raise InputError(f"prompt must hold {{text}}, and {{title}} at most beside it, got {prompt!r}")
        if dtype not in ("float32", "bfloat16", "float16"):
            raise InputError(f"dtype must be float32, bfloat16 or float16, got {dtype!r}")
        self.path, self.prompt, self.per_document, self.words = path, prompt, per_document, words
        self.device, self.dtype = device_of(device), dtype
        self._options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "do_sample": temperature > 0}
        if temperature > 0:
            self._options |= {"temperature": temperature, "top_p": top_p, "top_k": 0}
        self._model: Any = None
        self._tokenizer: Any = None

    def learn(self, documents: Sequence[Document]) -> None:
        """Load the model.

        Raises:
            InputError: if there is none, or it writes no text.
        """
        from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

        folder = locate(self.path)
        try:
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
            self._tokenizer = AutoTokenizer.from_pretrained(
                folder, padding_side="left", trust_remote_code=False
            )
            options = {"dtype": getattr(torch, self.dtype), "output_loading_info": True}
            found: Any = kind.from_pretrained(folder, **options)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise InputError(
                f"{self.path} is no model that writes texts: {str(error).splitlines()[0]}"
            ) from error
        loaded, info = found
        if lacking := sorted(info["missing_keys"]):
            raise InputError(
                f"{self.path} is no model that writes texts: it has no {lacking[0]}. Choose a seq2seq or "
                "causal language model as maker.path"
            )
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._model, self._alone = loaded.to(self.device).eval(), not config.is_encoder_decoder

    def pairs(self, document: Document, draw: random.Random) -> list[Pair]:
        """As `Maker`."""
        every = [joined(passage) for passage in passages(document, self.words)]
        if not every:
            return []
        chosen = [every[draw.randrange(len(every))] for _ in range(self.per_document)]
        queries = self._written(
            [self.prompt.format(text=text, title=document.title) for text in chosen], draw
        )
        return [Pair(query, text) for query, text in zip(queries, chosen, strict=True)]

    @torch.no_grad()
    def _written(self, prompts: Sequence[str], draw: random.Random) -> list[str]:
        """What the model writes after each prompt: its first line that has something."""
        longest = self._longest()
        read = self._tokenizer(
            list(prompts),
            return_tensors="pt",
            padding=True,
            truncation=longest is not None,
            max_length=longest,
        )
        read.pop("token_type_ids", None)
        with torch.random.fork_rng():
            torch.manual_seed(draw.getrandbits(63))
            options = {**self._options, "pad_token_id": self._tokenizer.pad_token_id}
            tokens = self._model.generate(**read.to(self.device), **options)
        new = tokens[:, read["input_ids"].shape[1] :] if self._alone else tokens
        texts = self._tokenizer.batch_decode(new, skip_special_tokens=True)
        lines = ([line.strip() for line in text.splitlines() if line.strip()] for text in texts)
        return [next(iter(some), "").strip("\"'") for some in lines]

    def _longest(self) -> int | None:
        """Tokens of a prompt, so that a query fits behind it; None where the model has no limit."""
        limit = getattr(self._model.config, "max_position_embeddings", None)
        new = self._options["max_new_tokens"] if self._alone else 0
        return None if limit is None else max(8, int(limit) - new)
