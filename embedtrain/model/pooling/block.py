"""One attention block, shared by all trainable poolings: who queries is the caller's choice.

Letters: M texts, Q queries, N context vectors, H hidden width, h heads, d width of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOST_HEADS = 8
WIDEN = 4  # the feed-forward part is this many times as wide as the states


class AttentionBlock(nn.Module):
    """Queries attend to a context; pre-norm, residual, then a gated feed-forward part with residual.

        Y = softmax(LN(queries) W_q (LN(context) W_k)ᵀ / √d) LN(context) W_v W_o + queries
        out = W_2 (a · gelu(b)) + Y,   [a, b] = W_1 LN(Y)

    W_q, W_k, W_v, W_o have no bias, W_1 (H to 2·4H) and W_2 have one; gelu is the exact one; LayerNorm has
    eps 1e-5. That is the block of NV-Embed (Lee et al. 2024, 2405.17428) as its released code has it (the
    paper's own equation has neither projections nor a gate) and, with latents as queries, the one of
    Tang & Yang 2024 (2409.02727). All parts begin as PyTorch's `nn.Linear` and `nn.LayerNorm` do, as there.

    It computes in the dtype of its queries whatever dtype the weights have, and under autocast as well.

    Args:
        hidden_size: H.
        heads: h; None for the largest power of two up to 8 that divides H.
        head_width: d; None for H / h. h·d need not be H.

    Raises:
        ValueError: when heads or head_width is not positive, or head_width is None and heads do not divide H.
    """

    def __init__(self, hidden_size: int, heads: int | None, head_width: int | None) -> None:
        super().__init__()
        self.heads, self.head_width = head_sizes(hidden_size, heads, head_width)
        inner = self.heads * self.head_width
        self.norm_queries = nn.LayerNorm(hidden_size)
        self.norm_context = nn.LayerNorm(hidden_size)
        self.query = nn.Linear(hidden_size, inner, bias=False)
        self.key_value = nn.Linear(hidden_size, 2 * inner, bias=False)
        self.out = nn.Linear(inner, hidden_size, bias=False)
        self.norm_feed = nn.LayerNorm(hidden_size)
        self.feed_in = nn.Linear(hidden_size, 2 * WIDEN * hidden_size)
        self.feed_out = nn.Linear(WIDEN * hidden_size, hidden_size)

    def forward(self, queries: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """(M, Q, H) from `queries` (M, Q, H) or (1, Q, H) and `context` (M, N, H) or (1, N, H).

        `mask` (M, N) bool is True on the context that may be attended to, at least once in each row.
        """
        # A product in bfloat16 would lose what float32 states and sums are for.
        with torch.autocast(queries.device.type, enabled=False):
            states = self._attend(queries, context, mask) + queries
            values, gates = _linear(self.feed_in, _norm(self.norm_feed, states)).chunk(2, dim=-1)
            return states + _linear(self.feed_out, values * F.gelu(gates))

    def _attend(self, queries: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        """What the queries gather, (M, Q, H)."""
        context = _norm(self.norm_context, context)
        keys, values = _linear(self.key_value, context).chunk(2, dim=-1)
        asked = _linear(self.query, _norm(self.norm_queries, queries))
        texts = max(queries.shape[0], context.shape[0])
        allowed = None if mask is None else mask[:, None, None, :]  # (M, 1, 1, N)
        found = F.scaled_dot_product_attention(
            self._split(asked, texts), self._split(keys, texts), self._split(values, texts), allowed
        )  # (M, h, Q, d)
        return _linear(self.out, found.transpose(1, 2).flatten(2))

    def _split(self, states: Tensor, texts: int) -> Tensor:
        """(M, h, N, d) from (M, N, h·d), one row repeated for all texts where there is one row only."""
        heads = states.reshape(*states.shape[:-1], self.heads, self.head_width).transpose(1, 2)
        return heads.expand(texts, -1, -1, -1)


def head_sizes(hidden_size: int, heads: int | None, head_width: int | None) -> tuple[int, int]:
    """Heads and the width of one, with the defaults, and the errors, that `AttentionBlock` states."""
    if heads is None:
        heads = max(number for number in (1, 2, 4, MOST_HEADS) if hidden_size % number == 0)
    if heads < 1:
        raise ValueError(f"heads must be positive, got {heads}")
    if head_width is None:
        if hidden_size % heads:
            raise ValueError(
                f"heads={heads} do not divide the hidden width {hidden_size} of this backbone: choose heads "
                "that do, or give head_width as well"
            )
        head_width = hidden_size // heads
    if head_width < 1:
        raise ValueError(f"head_width must be positive, got {head_width}")
    return heads, head_width


def _linear(layer: nn.Linear, states: Tensor) -> Tensor:
    bias = None if layer.bias is None else layer.bias.to(states.dtype)
    return F.linear(states, layer.weight.to(states.dtype), bias)


def _norm(layer: nn.LayerNorm, states: Tensor) -> Tensor:
    weight, bias = layer.weight.to(states.dtype), layer.bias.to(states.dtype)
    return F.layer_norm(states, layer.normalized_shape, weight, bias, layer.eps)
