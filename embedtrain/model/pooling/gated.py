"""Gated mean: a trained query at each layer says how much each token of a text counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from embedtrain.model.pooling.plain import Setting, masked_mean, pooled_only, register, wide
from embedtrain.model.pooling.sets import check_layer, with_fewer_layers

SHIFT = 2.0
WIDEST = 1 + math.exp(SHIFT)  # of a gate, which is 1 at a score of 0


@register
class GatedMean(nn.Module):
    """The mean of the pooled tokens, each scaled by a gate that a query of the layer opens.

    vector = mean_t( g_t h_t ),   g_t = sigmoid(q_l · h_t - 2) / sigmoid(-2)

    Queries begin at zero: all gates are 1, which is mean pooling, and a backbone made for that loses nothing.
    The words that say what a text is about come to count more, up to 8.4: the last blocks of a deep model see
    to that by themselves, its first layers cannot.

    Attention pooling (Lin et al. 2017, 1703.03130) has exp(q · h) for a gate, and divides by their sum, which
    unit vectors do not show. The sigmoid is near to it as long as gates are far from open: hence the 2. A
    gate of this form is `torch.nn.GLU`, so modules of sentence-transformers give the same vectors.

    Letters as in `plain`.

    Args:
        hidden_size: H.
        num_layers: blocks of the backbone, each of which has a query.
        lr: learning rate of the queries, which never decay; that of the optimiser is made for the backbone.

    Raises:
        ValueError: for a number that is not positive.
    """

    name: ClassVar[str] = "gated_mean"
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
        return masked_mean(self.tokens(pooled_only(hiddens[-1], mask), layer), mask)

    def tokens(self, hidden: Tensor, layer: int) -> Tensor:
        """Each token times its gate, (M, T, H): their mean is the vector.

        Raises:
            ValueError: for a layer without a query.
        """
        check_layer(layer, self.num_layers)
        hidden = wide(hidden)
        # Not `@`: autocast would take that in bfloat16, and int8 graphs know no vector as a weight.
        scores = (hidden * self.queries[layer - 1].to(hidden.dtype)).sum(-1)  # (M, T)
        gates = WIDEST * (scores - SHIFT).sigmoid()
        return gates.unsqueeze(-1) * hidden

    def settings(self) -> dict[str, Setting]:
        """Nothing that decides a vector: the queries are parameters."""
        return {}

    def cut(self, layer: int) -> GatedMean:
        """A copy with the first queries, for a backbone of blocks 1..layer."""
        check_layer(layer, self.num_layers)
        return with_fewer_layers(self, layer)

    def restrict(self, layers: object, *, varying: bool) -> None:
        """Do nothing: one parameter holds all queries, and those of other layers have a gradient of zero."""


def as_glu(query: Tensor) -> dict[str, Tensor]:
    """Weight (2H, H) and bias (2H,) of a linear layer of each token that `torch.nn.GLU` follows.

    GLU multiplies the first half of its coordinates with the sigmoid of the second: here the state times the
    widest gate, and the shifted score of the query (H,) in each coordinate.
    """
    width = len(query)
    state = (WIDEST * torch.eye(width)).to(query)
    bias = torch.cat([torch.zeros(width), torch.full((width,), -SHIFT)]).to(query)
    return {"weight": torch.cat([state, query.expand(width, -1)]), "bias": bias}


def from_glu(weight: Tensor, bias: Tensor) -> Tensor | None:
    """The query (H,) of such a weight (2H, H) and bias (2H,); None for any other layer."""
    expected = as_glu(weight[-1])
    alike = torch.equal(weight, expected["weight"]) and torch.equal(bias, expected["bias"])
    return weight[-1] if alike else None
