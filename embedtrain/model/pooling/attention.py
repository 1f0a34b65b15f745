"""Attention pooling: a trained query at each layer says how much each token of a text counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from embedtrain.model.pooling.plain import Setting, pooled_only, register
from embedtrain.model.pooling.sets import check_layer, with_fewer_layers


@register
class AttentionPooling(nn.Module):
    """A mean of the pooled tokens, each weighted by the softmax of its state times a query of the layer.

    vector = Σ_t a_t h_t,   a = softmax_t(q_l · h_t)

    Queries begin at zero, which is mean pooling, so a backbone made for that loses nothing. The words that
    say what a text is about come to count more: the last blocks of a deep model see to that by themselves,
    its first layers cannot. It is the self-attentive embedding of Lin et al. (2017, 1703.03130) with one hop
    and no hidden layer.

    Letters as in `plain`.

    Args:
        hidden_size: H.
        num_layers: blocks of the backbone, each of which has a query.
        lr: learning rate of the queries, which never decay; that of the optimiser is made for the backbone.

    Raises:
        ValueError: for a number that is not positive.
    """

    name: ClassVar[str] = "attention"
    needs_all_layers: ClassVar[bool] = False
    needs_eos: ClassVar[bool] = False

    def __init__(self, *, hidden_size: int, num_layers: int, lr: float = 1e-3) -> None:
        super().__init__()
        if not lr > 0:
            raise ValueError(f"lr must be above 0, got {lr}")
        self.hidden_size, self.num_layers, self.lr = hidden_size, num_layers, lr
        self.queries = nn.Parameter(torch.zeros(num_layers, hidden_size))

    def forward(self, hiddens: Sequence[Tensor], mask: Tensor, layer: int) -> Tensor:
        """(M, H) from the last of `hiddens` (M, T, H), which is after block `layer`, and `mask` (M, T)."""
        check_layer(layer, self.num_layers)
        hidden = pooled_only(hiddens[-1], mask)
        # A product in bfloat16 would lose what float32 states and sums are for.
        with torch.autocast(hidden.device.type, enabled=False):
            scores = hidden @ self.queries[layer - 1].to(hidden.dtype)  # (M, T)
            # A text without any pooled token has equal weights, and zeros to weigh.
            shares = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(1)
            return (shares.unsqueeze(1) @ hidden).squeeze(1)

    def settings(self) -> dict[str, Setting]:
        """What, with `hidden_size` and `num_layers`, builds it again."""
        return {"lr": self.lr}

    def cut(self, layer: int) -> AttentionPooling:
        """A copy with the first queries, for a backbone of blocks 1..layer."""
        check_layer(layer, self.num_layers)
        return with_fewer_layers(self, layer)

    def restrict(self, layers: object, *, varying: bool) -> None:
        """Do nothing: one parameter holds all queries, and those of other layers have a gradient of zero."""
