"""Latent attention of NV-Embed: every token looks up trained latents, then the tokens are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from embedtrain.model.pooling.plain import Setting, masked_mean, pooled_only, register, wide
from embedtrain.model.pooling.sets import LatentSet, LayerSets, cut_unless_shared, latent_count, restrict_sets


@register
class LatentAttention(nn.Module):
    """NV-Embed's pooling (Lee et al. 2024, 2405.17428, section 3.1 and the released model's code).

    Each token's state queries the latents, which are keys and values; the block's residual and feed-forward
    part follow, then the mean over the pooled tokens. (M, H); letters as in `plain`. No mask is needed inside
    the block, since no token sees another. Latents pass a LayerNorm, so their scale is irrelevant; they begin
    as N(0, 1), as there. NV-Embed on a 4096-wide decoder: 512 latents, 8 heads of width 4096.

    Args:
        hidden_size: H.
        num_layers: blocks of the backbone.
        latents: trained vectors; H / 8 within 16..512 when none.
        heads: attention heads; the largest power of two up to 8 that divides H when none.
        head_width: width of a head; H / heads when none.
        shared: one set of parameters for all layers, or one for each layer.

    Raises:
        ValueError: for a number that is not positive, or heads that do not divide H without `head_width`.
    """

    name: ClassVar[str] = "latent_attention"
    needs_all_layers: ClassVar[bool] = False
    needs_eos: ClassVar[bool] = False

    def __init__(
        self,
        *,
        hidden_size: int,
        num_layers: int,
        latents: int | None = None,
        heads: int | None = None,
        head_width: int | None = None,
        shared: bool = True,
    ) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        count = latent_count(hidden_size, latents)
        self.sets = LayerSets(
            lambda layer: LatentSet(hidden_size, count, heads, head_width), num_layers, shared=shared
        )

    def forward(self, hiddens: Sequence[Tensor], mask: Tensor, layer: int) -> Tensor:
        """(M, H) from the last of `hiddens` (M, T, H), which is after block `layer`, and `mask` (M, T)."""
        chosen = self.sets.of(layer)
        hidden = pooled_only(hiddens[-1], mask)  # what padding holds would reach the weights' gradients
        return masked_mean(_looked_up(chosen, hidden), mask)

    def tokens(self, hidden: Tensor, layer: int) -> Tensor:
        """Each token after the block, (M, T, H): what NV-Embed's module gives without a mask."""
        return _looked_up(self.sets.of(layer), wide(hidden))

    def settings(self) -> dict[str, Setting]:
        """What, with `hidden_size` and `num_layers`, builds it again; defaults filled in."""
        return self.sets.settings()

    cut, restrict = cut_unless_shared, restrict_sets


def _looked_up(chosen: LatentSet, hidden: Tensor) -> Tensor:
    found: Tensor = chosen.block(hidden, chosen.latents.to(hidden.dtype).unsqueeze(0))
    return found
