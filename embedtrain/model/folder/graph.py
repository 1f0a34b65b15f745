"""One sub-model from token ids to vectors, as a module that an ONNX graph is made of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedtrain.model.backbone.backbone import Backbone
from embedtrain.model.pooling import GatedMean, Pooling, pool_mask
from embedtrain.types import Inputs


class Graph(nn.Module):
    """One sub-model from token ids to vectors.

    Args:
        backbone: cut to the layers of the sub-model.
        pooling: cut likewise.
        dim: leading coordinates that are kept.
        normalize: whether vectors have length one.
        skips: whether the tokens of a prompt are left out of pooling.
        rotation: what turns the vectors, (dim, W); none where nothing does.
    """

    def __init__(
        self,
        backbone: Backbone,
        pooling: Pooling,
        *,
        dim: int,
        normalize: bool,
        skips: bool,
        rotation: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.rotation: Tensor | None
        self.backbone, self.pooling = backbone, pooling
        self.dim, self.normalize, self.skips = dim, normalize, skips
        self.register_buffer("rotation", rotation)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, prompt_len: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(M, T, dim), (M, dim) and (M, T, H) from ids and mask (M, T) and prompt lengths (M,), all int64."""
        mask = attention_mask > 0
        skipped = input_ids.new_zeros(input_ids.shape[0]) if prompt_len is None else prompt_len
        layer = self.backbone.num_layers
        layers = tuple(range(1, layer + 1)) if self.pooling.needs_all_layers else (layer,)
        states = self.backbone(Inputs(input_ids, mask, skipped), layers)
        pooled = self.pooling(states, pool_mask(mask, skipped) if self.skips else mask, layer)
        kept = self._kept(pooled)
        vectors = F.normalize(kept, dim=-1) if self.normalize else kept
        gated = self.pooling.tokens(states[-1], layer) if isinstance(self.pooling, GatedMean) else states[-1]
        return self._kept(gated), vectors, states[-1].clone()

    @property
    def gives_states(self) -> bool:
        """Whether what it gives of tokens are their states: neither gated, nor rotated, nor cut."""
        plain = self.rotation is None and not isinstance(self.pooling, GatedMean)
        return plain and self.dim == self.backbone.hidden_size

    def _kept(self, vectors: Tensor) -> Tensor:
        """(..., dim) of vectors (..., P), or of the states of tokens, which a pooling may make wider."""
        if (turn := self.rotation) is None or turn.shape[1] > vectors.shape[-1]:
            return vectors[..., : self.dim]
        return vectors[..., : turn.shape[1]] @ turn.T

    def inputs(self, tokens: Inputs) -> tuple[Tensor, ...]:
        """The arguments of `forward` for some texts."""
        given = (tokens.values, tokens.mask.to(torch.int64), tokens.prompt_len)
        return given if self.skips else given[:2]
