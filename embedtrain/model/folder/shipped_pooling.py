"""The pooling module of an exported folder, for what sentence-transformers has no module of its own for.

This file and those of the poolings are copied into the folder, where sentence-transformers loads them with
`trust_remote_code=True`. So it imports torch, safetensors and those files only, and works without embedtrain.

Letters: M texts, T tokens, H hidden width.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from embedtrain.model.pooling.plain import (
    built,  # in a folder, the file of its pooling is imported as well
)

PREFIX = "embedtrain_"  # of the source files beside the model
CONFIG, WEIGHTS = "config.json", "model.safetensors"


class StateNorm(nn.Module):
    """The final norm of a pre-norm backbone, with a copy of its weights: `rms` or `layer`."""

    def __init__(self, kind: str, hidden_size: int, eps: float, *, bias: bool) -> None:
        super().__init__()
        self.kind, self.eps = kind, eps
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.bias = nn.Parameter(torch.zeros(hidden_size)) if bias else None

    def forward(self, states: Tensor) -> Tensor:
        """(M, T, H) from (M, T, H), computed in float32 or wider."""
        wide = states if states.dtype == torch.float64 else states.float()
        weight = self.weight.to(wide.dtype)
        if self.kind == "rms":
            return F.rms_norm(wide, weight.shape, weight, self.eps).to(states.dtype)
        bias = None if self.bias is None else self.bias.to(wide.dtype)
        return F.layer_norm(wide, weight.shape, weight, bias, self.eps).to(states.dtype)


class StatePooling(nn.Module):
    """Pools token states as embedtrain does, as a module of a SentenceTransformer.

    Args:
        pooling: its name.
        settings: of the pooling.
        hidden_size: H.
        num_layers: blocks of the backbone in this folder.
        include_prompt: whether the tokens of a prompt are pooled.
        prompt_lengths: where sentence-transformers counts a prompt's tokens alone and so finds another
            number than there are in front of a text: its number, as text, to the right one.
        norm: keywords of `StateNorm`; None when states need no norm.
    """

    def __init__(
        self,
        pooling: str,
        settings: Mapping[str, Any],
        hidden_size: int,
        num_layers: int,
        *,
        include_prompt: bool,
        prompt_lengths: Mapping[str, int],
        norm: Mapping[str, Any] | None,
    ) -> None:
        super().__init__()
        self.config = {
            "pooling": pooling,
            "settings": dict(settings),
            "hidden_size": hidden_size,
            "num_layers": num_layers,
            "include_prompt": include_prompt,
            "prompt_lengths": dict(prompt_lengths),
            "norm": None if norm is None else dict(norm),
        }
        self.hidden_size, self.num_layers = hidden_size, num_layers
        self.include_prompt = include_prompt
        self.prompt_lengths = dict(prompt_lengths)
        self.pooling = built(pooling, dict(settings), hidden_size=hidden_size, num_layers=num_layers)
        self.norm = None if norm is None else StateNorm(hidden_size=hidden_size, **norm)

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        """Adds `sentence_embedding` (M, H) to the features that the Transformer module gave.

        Raises:
            ValueError: when the Transformer does not give what the pooling needs.
        """
        last: Tensor = features["token_embeddings"]  # (M, T, H)
        mask: Tensor = features["attention_mask"].bool()  # (M, T)
        if mask.shape != last.shape[:2]:
            raise ValueError("the texts were packed without padding: set `model[0].unpad_inputs = False`")
        states = (*self._inner(features), last) if self.pooling.needs_all_layers else (last,)
        keep = mask & (mask.cumsum(1) > self._skipped(features))
        pooled = self.pooling(states, keep, self.num_layers)
        features["sentence_embedding"] = pooled.to(last.dtype)
        return features

    def _inner(self, features: Mapping[str, Any]) -> list[Tensor]:
        """The states after blocks 1..num_layers-1, normed; those of the last block are normed already."""
        every = features.get("all_layer_embeddings", ())
        if len(every) != self.num_layers + 1:
            raise ValueError(
                f"pooling over layers needs the states of {self.num_layers} blocks, got {len(every)}: the "
                "config must say output_hidden_states=true"
            )
        return [state if self.norm is None else self.norm(state) for state in every[1:-1]]

    def _skipped(self, features: Mapping[str, Any]) -> int:
        """Leading tokens that are not pooled."""
        found = features.get("prompt_length")
        if self.include_prompt or found is None:
            return 0
        counted = int(found.reshape(-1)[0]) if isinstance(found, Tensor) else int(found)
        return self.prompt_lengths.get(str(counted), counted)

    def get_embedding_dimension(self) -> int:
        """Coordinates of the vectors."""
        return self.hidden_size

    def get_sentence_embedding_dimension(self) -> int:
        """Coordinates of the vectors, as versions before 6 ask for them."""
        return self.hidden_size

    def save(self, output_path: str, **_: object) -> None:
        """Write config, weights and, beside the model, the source files."""
        folder = Path(output_path)
        (folder / CONFIG).write_text(json.dumps(self.config, indent=2) + "\n", encoding="utf-8")
        if state := {name: value.contiguous() for name, value in self.state_dict().items()}:
            save_file(state, folder / WEIGHTS)
        for source in Path(__file__).parent.glob(f"{PREFIX}*.py"):
            shutil.copy(source, folder.parent)

    @classmethod
    def load(cls, input_path: str) -> StatePooling:
        """The module of a folder."""
        folder = Path(input_path)
        module = cls(**json.loads((folder / CONFIG).read_text(encoding="utf-8")))
        if (folder / WEIGHTS).is_file():
            module.load_state_dict(load_file(folder / WEIGHTS), assign=True)
        return module
