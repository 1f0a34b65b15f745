"""Decoders that rebuild a text from its vector, and are thrown away.

Letters: M texts, T tokens, H hidden width, I width of the feed-forward part.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

from embedtrain.model.backbone.backbone import Backbone
from embedtrain.training.steps.texts.head import Head


def copied_blocks(backbone: Backbone, count: int) -> nn.ModuleList:
    """Copies of the first block of a backbone, which train."""
    blocks = nn.ModuleList(copy.deepcopy(backbone.blocks[0]) for _ in range(count))
    for block in blocks:
        vars(block)["gradient_checkpointing"] = False  # `decoded` changes what a block is given, once
    for parameter in blocks.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return blocks


def lifted(head: Head, width: int, seed: int) -> nn.Module:
    """(M, E) what a head's transform gives to (M, H): nothing to do where both are equally wide."""
    narrow = head.decoder.weight.shape[1]
    if narrow == width:
        return nn.Identity()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        lift = nn.Linear(narrow, width)
        nn.init.normal_(lift.weight, std=0.02)
        nn.init.zeros_(lift.bias)
    return lift.to(head.decoder.weight.dtype)


class DecoderLayer(nn.Module):
    """Attention and feed-forward part of BERT, post-norm, whose queries may be others than keys and values.

    What is added around the attention is the query (Xiao et al. 2022, 2205.12035).

    Args:
        config: of the backbone; heads, widths, activation and dropout are its own where it names them.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        width = int(config.hidden_size)
        self.heads = int(config.num_attention_heads)
        inner = int(getattr(config, "intermediate_size", getattr(config, "hidden_dim", 4 * width)))
        eps = float(getattr(config, "layer_norm_eps", getattr(config, "norm_eps", 1e-12)))
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.norm, self.last_norm = nn.LayerNorm(width, eps=eps), nn.LayerNorm(width, eps=eps)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        activation = getattr(config, "hidden_act", getattr(config, "activation", "gelu"))
        self.activation = ACT2FN[activation if activation in ACT2FN else "gelu"]
        self.dropout = nn.Dropout(float(getattr(config, "hidden_dropout_prob", 0.1)))
        self.apply(_drawn)

    def forward(
        self,
        query: Tensor,
        memory: Tensor,
        visible: Tensor,
        between: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """(M, T, H).

        Args:
            query: (M, T, H).
            memory: (M, S, H), keys and values.
            visible: (M, T, S) bool, which of the memory a query sees.
            between: what becomes of the state between attention and feed-forward part.
        """
        seen = self.attended(query, memory, visible)
        state = self.norm(query + self.dropout(self.out(seen)))
        if between is not None:
            state = between(state)
        inner = self.down(self.activation(self.up(state)))
        found: Tensor = self.last_norm(state + self.dropout(inner))
        return found

    def attended(self, query: Tensor, memory: Tensor, visible: Tensor) -> Tensor:
        """(M, T, H) before the output matrix."""
        parts = (self.query(query), self.key(memory), self.value(memory))
        asked, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        scores = asked @ key.transpose(-1, -2) / math.sqrt(key.shape[-1])  # (M, heads, T, S)
        wide = scores if scores.dtype == torch.float64 else scores.float()
        closed = ~visible[:, None]
        shares = wide.masked_fill(closed, torch.finfo(wide.dtype).min).softmax(-1).to(value.dtype)
        found: Tensor = (self.dropout(shares) @ value).transpose(1, 2).flatten(-2)
        return found


def _drawn(module: nn.Module) -> None:
    """Weights of BERT's initialisation."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


class Positions(nn.Module):
    """(M, T, H) learned states of places, for a backbone that has no table of them."""

    def __init__(self, longest: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(longest, width)
        _drawn(self.table)

    def forward(self, places: Tensor) -> Tensor:
        """States of places (M, T)."""
        found: Tensor = self.table(places)
        return found
