"""Models that only sentence-transformers can run, read as `Inputs` and given as vectors.

Letters: M texts, T tokens, D width of the vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from embedtrain.model.folder.contract import tensors_hash, text_hash
from embedtrain.model.inputs.micro_batches import CPU_MAX_TOKENS, DEVICE_MAX_TOKENS, lengths_of, micro_batches
from embedtrain.model.inputs.processor import padded
from embedtrain.model.inputs.tokenizer import TextTokenizer
from embedtrain.transfers import moved
from embedtrain.types import InputError, Inputs, Processor, Role

ROLE_PROMPTS: dict[Role, tuple[str, ...]] = {
    "query": ("query",),
    "document": ("document", "passage", "corpus"),
}


class StaticTokenizer:
    """Texts to tokens of a static embedding, without special ones; picklable."""

    def __init__(self, tokenizer: Tokenizer, prompts: Mapping[Role, str]) -> None:
        self.tokenizer, self.prompts = tokenizer, dict(prompts)

    def __call__(
        self, texts: Sequence[str], role: Role, prompts: Sequence[str | None] | None = None
    ) -> Inputs:
        """(M, T) tokens; a text may have none."""
        own = self.prompts.get(role, "")
        chosen = [own if prompt is None else prompt for prompt in prompts or [None] * len(texts)]
        ids = [
            encoding.ids
            for encoding in self.tokenizer.encode_batch(
                [prompt + text for prompt, text in zip(chosen, texts, strict=True)], add_special_tokens=False
            )
        ]
        flat = np.fromiter(chain.from_iterable(ids), np.int64)
        return padded(flat, [len(row) for row in ids], [0] * len(ids))


class SentenceVectors:
    """A whole sentence-transformers model on `Inputs`.

    Args:
        folder: of the model.
        dtype: of its weights.
        max_length: longest text in tokens; the model's own when None.
        prompts: text put before every text of a role; the model's own when None.
        trust_remote_code: run code that lies in the folder.

    Raises:
        InputError: for a model that does not begin with a text transformer or a static embedding.
    """

    def __init__(
        self,
        folder: Path,
        *,
        dtype: torch.dtype,
        max_length: int | None = None,
        prompts: Mapping[str, str] | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        self.code = [path.read_text("utf-8") for path in sorted(folder.glob("*.py")) if trust_remote_code]
        self.module = SentenceTransformer(str(folder), device="cpu", trust_remote_code=trust_remote_code).to(
            dtype
        )
        known = self.module.prompts if prompts is None else prompts
        chosen: dict[Role, str] = {
            role: next((known[name] or "" for name in names if known.get(name)), "")
            for role, names in ROLE_PROMPTS.items()
        }
        first: Any = self.module[0]
        self.static = isinstance(first, StaticEmbedding)
        self.include_prompt = all(getattr(part, "include_prompt", True) for part in self.module)
        self.process: Processor
        tokenizer: Any = getattr(first, "tokenizer", None)
        if self.static:
            self.process = StaticTokenizer(tokenizer, chosen)
        elif not isinstance(tokenizer, PreTrainedTokenizerBase) or set(_inputs(first)) != {"text"}:
            raise InputError(
                f"{folder} begins with a {type(first).__name__} that reads more than plain text: choose a "
                "model that begins with a text transformer or a static embedding"
            )
        else:
            longest = first.max_seq_length or tokenizer.model_max_length
            self.process = TextTokenizer(
                tokenizer,
                longest if max_length is None else max_length,
                prompts={str(role): prompt for role, prompt in chosen.items()},
                include_prompt=self.include_prompt,
                padding_side="left" if tokenizer.padding_side == "left" else "right",
            )
        self.width = int(self.module.get_embedding_dimension() or 0)

    @property
    def identity(self) -> str:
        """40 hexadecimal digits that name the weights and modules."""
        parts = [f"{type(part).__name__} {getattr(part, 'config_keys', '')} {part}" for part in self.module]
        settings: list[object] = [getattr(part, "get_config_dict", dict)() for part in self.module]
        text = f"{tensors_hash(self.module.state_dict())} {parts} {settings}"
        return text_hash(f"{text} {self.code}" if self.code else text)

    def vectors(self, tokens: Inputs) -> Tensor:
        """(M, D), not normalised, texts of like length and prompt together."""
        device = tokens.values.device
        budget = CPU_MAX_TOKENS if device.type == "cpu" else DEVICE_MAX_TOKENS
        lengths = lengths_of(tokens)
        skips: list[int] = [0] * len(lengths) if self.include_prompt else tokens.prompt_len.tolist()
        order: list[int] = []
        parts: list[Tensor] = []
        for skip in sorted(set(skips)):  # sentence-transformers skips one number of tokens in all of a batch
            alike = [row for row, mine in enumerate(skips) if mine == skip]
            for group in micro_batches([lengths[row] for row in alike], budget):
                rows = [alike[place] for place in group]
                order += rows
                parts.append(self._some(tokens, moved(torch.tensor(rows), device), skip))
        back = moved(torch.tensor(order).argsort(), device)
        return torch.cat(parts)[back]

    def _some(self, tokens: Inputs, rows: Tensor, skip: int) -> Tensor:
        ids, mask = tokens.values[rows], tokens.mask[rows]
        if self.static:
            ends = mask.sum(1).cumsum(0)  # (m,)
            features = {"input_ids": ids[mask], "offsets": ends - mask.sum(1)}
        else:
            columns = mask.any(0)
            features = {"input_ids": ids[:, columns], "attention_mask": mask[:, columns].to(torch.int64)}
            if skip:
                features["prompt_length"] = skip  # type: ignore[assignment]
        result: Tensor = self.module(features)["sentence_embedding"]
        return result


def _inputs(first: object) -> Mapping[str, object] | Sequence[str]:
    """What kinds of input the first module reads."""
    kinds: Mapping[str, object] | Sequence[str] = getattr(first, "modality_config", None) or ("none",)
    return kinds
