"""Trainable poolings of "Pooling and Attention" (Tang & Yang 2024, 2409.02727): latents query states.

Letters: M texts, T tokens, H hidden width, r latents. Padding and prompts are no keys, and the last token is
found on either padding side; where the paper's code does otherwise, a setting has it by name.

The latents are also the residual, so their mean over r, N(0, latent_scale²/r) in each coordinate, is the same
in all vectors at the start. How much that is, before any training, on MiniLM (states of rms 0.4 to 0.65; the
first 250 pairs of STS-B, 3 seeds; mean pooling: Spearman 0.940, cosine of unrelated texts 0.11 on average):

    last_layer   latent_scale 1: 0.933, cosine 0.35              0.02: 0.927, cosine 0.12
    multi_layer  both scales 1: 0.783, cosine 0.95     table_scale 0.02: 0.807, cosine 0.77

Ten steps of training multi_layer alone (16 latents, 320 pairs, 2 seeds, 150 other pairs) give 0.802 with
table_scale 1 and 0.792 with 0.02: a large table did no lasting harm there, and the defaults are the paper's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from embedtrain.model.pooling.plain import Setting, last_pooled, masked_mean, pooled_only, register, wide
from embedtrain.model.pooling.sets import (
    LatentSet,
    LayerSets,
    cut_unless_shared,
    latent_count,
    restrict_sets,
    with_fewer_layers,
)

TOKENS, ALL_POSITIONS, LAST_TOKEN, MEAN = "tokens", "all_positions", "last_token", "mean"


@register
class LastLayer(nn.Module):
    """Latents query the states of one layer; (M, H), the mean over the latents.

    `source` says which states: "tokens", the pooled tokens; "all_positions", every position of the batch,
    padding and prompts too, as design 4 of the paper does, whose vectors therefore depend on how far a text
    was padded: for comparison only; "last_token", the last pooled token alone (design 2). With one key a
    softmax is 1, so the latter attends to nothing: each latent gets the same affine map of that state.

    The paper on 4096-wide decoders: 768 latents, 32 heads of width 2048, 1.28 billion parameters.

    Args:
        hidden_size: H.
        num_layers: blocks of the backbone.
        source: "tokens", "all_positions" or "last_token".
        latents: r, trained vectors; H / 8 within 16..512 when none.
        heads: attention heads; the largest power of two up to 8 that divides H when none.
        head_width: width of a head; H / heads when none.
        latent_scale: standard deviation that latents begin with; the paper's code has 1.
        shared: one set of parameters for all layers, or one for each layer.

    Raises:
        ValueError: for an unknown source, a number out of range, or heads that do not divide H without
            `head_width`.
    """

    name: ClassVar[str] = "last_layer"
    needs_all_layers: ClassVar[bool] = False

    def __init__(
        self,
        *,
        hidden_size: int,
        num_layers: int,
        source: str = TOKENS,
        latents: int | None = None,
        heads: int | None = None,
        head_width: int | None = None,
        latent_scale: float = 1.0,
        shared: bool = True,
    ) -> None:
        super().__init__()
        _check_source(source, (TOKENS, ALL_POSITIONS, LAST_TOKEN))
        self.hidden_size, self.source, self.latent_scale = hidden_size, source, latent_scale
        count = latent_count(hidden_size, latents)
        self.sets = LayerSets(
            lambda layer: LatentSet(hidden_size, count, heads, head_width, latent_scale=latent_scale),
            num_layers,
            shared=shared,
        )

    @property
    def needs_eos(self) -> bool:
        """Whether a text must end in an end token: where that token alone is looked at."""
        return self.source == LAST_TOKEN

    def forward(self, hiddens: Sequence[Tensor], mask: Tensor, layer: int) -> Tensor:
        """(M, H) from the last of `hiddens` (M, T, H), which is after block `layer`, and `mask` (M, T)."""
        chosen = self.sets.of(layer)
        states, keys = self._states(hiddens[-1], mask)
        return _queried(chosen, states, keys, mask)

    def _states(self, hidden: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """States that are looked at, (M, N, H), and which of them are keys, (M, N), or None for all."""
        if self.source == LAST_TOKEN:
            return last_pooled(hidden, mask).unsqueeze(1), None
        if self.source == ALL_POSITIONS:
            return wide(hidden), None
        # A row without keys has no softmax; its states are zero, and so will its vector be.
        return pooled_only(hidden, mask), mask | ~mask.any(1, keepdim=True)

    def settings(self) -> dict[str, Setting]:
        """What, with `hidden_size` and `num_layers`, builds it again; defaults filled in."""
        return {"source": self.source, **self.sets.settings(), "latent_scale": self.latent_scale}

    cut, restrict = cut_unless_shared, restrict_sets


@register
class MultiLayer(nn.Module):
    """Latents query one vector of each layer 1..layer; (M, H), the mean over the latents.

    The vector of block l is, by `source`, the "mean" of the pooled tokens (design 5 of the paper) or the
    "last_token" (design 3), plus row l of a trained layer table (the paper's "layer weight matrix": it adds
    a vector to each layer and multiplies nothing). At layer l of a 2D plan only blocks and rows 1..l take
    part, which is what a model cut to l blocks has. States of all layers carry the final norm here; in the
    paper's code only those of the last do, so that there its N(0, 1) table outweighs early layers.

    The paper on 4096-wide decoders: 768 latents, 32 heads of width 2048.

    Args:
        hidden_size: H.
        num_layers: blocks of the backbone.
        source: "mean" or "last_token".
        latents: r, trained vectors; H / 8 within 16..512 when none.
        heads: attention heads; the largest power of two up to 8 that divides H when none.
        head_width: width of a head; H / heads when none.
        latent_scale: standard deviation that latents begin with; the paper's code has 1.
        table_scale: standard deviation that the layer table begins with; the paper's code has 1.
        shared: one set of parameters for all layers, or one for each layer.

    Raises:
        ValueError: for an unknown source, a number out of range, or heads that do not divide H without
            `head_width`.
    """

    name: ClassVar[str] = "multi_layer"
    needs_all_layers: ClassVar[bool] = True

    def __init__(
        self,
        *,
        hidden_size: int,
        num_layers: int,
        source: str = MEAN,
        latents: int | None = None,
        heads: int | None = None,
        head_width: int | None = None,
        latent_scale: float = 1.0,
        table_scale: float = 1.0,
        shared: bool = True,
    ) -> None:
        super().__init__()
        _check_source(source, (MEAN, LAST_TOKEN))
        self.hidden_size, self.source = hidden_size, source
        self.latent_scale, self.table_scale = latent_scale, table_scale
        count = latent_count(hidden_size, latents)
        scales = {"latent_scale": latent_scale, "table_scale": table_scale}
        self.sets = LayerSets(
            lambda layer: LatentSet(hidden_size, count, heads, head_width, rows=layer, **scales),
            num_layers,
            shared=shared,
        )

    @property
    def needs_eos(self) -> bool:
        """Whether a text must end in an end token: where that token alone is looked at."""
        return self.source == LAST_TOKEN

    def forward(self, hiddens: Sequence[Tensor], mask: Tensor, layer: int) -> Tensor:
        """(M, H) from `hiddens`, after blocks 1..layer, each (M, T, H), and `mask` (M, T).

        Raises:
            ValueError: if there are not `layer` hiddens, or `layer` is outside 1..num_layers.
        """
        chosen = self.sets.of(layer)
        if len(hiddens) != layer:
            raise ValueError(
                f"multi_layer pooling at layer {layer} takes the states after blocks 1..{layer}, "
                f"got {len(hiddens)} of them"
            )
        reduce = masked_mean if self.source == MEAN else last_pooled
        states = torch.stack([reduce(hidden, mask) for hidden in hiddens], dim=1)  # (M, layer, H)
        return _queried(chosen, states + chosen.layer_table[:layer].to(states.dtype), None, mask)

    def settings(self) -> dict[str, Setting]:
        """What, with `hidden_size` and `num_layers`, builds it again; defaults filled in."""
        scales: dict[str, Setting] = {"latent_scale": self.latent_scale, "table_scale": self.table_scale}
        return {"source": self.source, **self.sets.settings(), **scales}

    def cut(self, layer: int) -> MultiLayer:
        """What a backbone of blocks 1..layer needs: a copy with rows, and sets, 1..layer; itself uncut.

        Raises:
            ValueError: if `layer` is outside 1..num_layers.
        """
        self.sets.of(layer)
        if layer == self.sets.num_layers:
            return self
        return with_fewer_layers(self, layer)

    restrict = restrict_sets


def _queried(chosen: LatentSet, states: Tensor, keys: Tensor | None, mask: Tensor) -> Tensor:
    """The mean over the latents, (M, H), of what they make of `states` (M, N, H); zeros for an empty text."""
    latents = chosen.latents.to(states.dtype).unsqueeze(0)  # (1, r, H)
    found: Tensor = chosen.block(latents, states, keys)  # (M, r, H)
    return found.mean(1).masked_fill(~mask.any(1, keepdim=True), 0.0)


def _check_source(source: str, known: Sequence[str]) -> None:
    if source not in known:
        raise ValueError(f"source must be one of {', '.join(known)}, got {source!r}")
