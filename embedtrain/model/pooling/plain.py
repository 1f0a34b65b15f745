"""Poolings without parameters, and what every pooling does with states. Letters: M texts, T tokens, H width.

The mask is True on the tokens that are pooled: real ones, less those of a prompt that is left out. It is not
the attention mask. Positions are counted over pooled tokens only, so the side and amount of padding are
irrelevant, and nothing of a token outside the mask reaches a vector or a gradient, be it infinite. A text
without any pooled token gives zeros. Sums are float32 whatever the states are; float64 stays float64.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

Setting = str | int | float | bool | list[Any] | dict[str, Any]  # what JSON holds
Module = TypeVar("Module", bound=nn.Module)
Kind = TypeVar("Kind", bound=type[nn.Module])

POOLINGS: dict[str, type[nn.Module]] = {}  # every pooling by its name


def register(kind: Kind) -> Kind:
    """The class itself, known by its `name` from now on: folders, configs and exported folders find it."""
    POOLINGS[str(kind.name)] = kind  # type: ignore[attr-defined]
    return kind


def built(name: str, settings: dict[str, Any], *, hidden_size: int, num_layers: int) -> nn.Module:
    """A registered pooling of these settings, for a backbone of this size."""
    # The poolings without parameters take no size.
    size = {"hidden_size": hidden_size, "num_layers": num_layers}
    accepted = inspect.signature(POOLINGS[name]).parameters
    return POOLINGS[name](**{key: value for key, value in size.items() if key in accepted}, **settings)


def wide(hidden: Tensor) -> Tensor:
    """The states in float32, or as they are in float64."""
    return hidden if hidden.dtype == torch.float64 else hidden.float()


def pooled_only(hidden: Tensor, mask: Tensor) -> Tensor:
    """The states (M, T, H), wide, and zero where `mask` (M, T) is False."""
    return wide(hidden).masked_fill(~mask.unsqueeze(-1), 0.0)


def masked_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """The average of the states (M, T, H) where `mask` (M, T) is True, (M, H); zeros where it nowhere is."""
    hidden = pooled_only(hidden, mask)
    return hidden.sum(1) / mask.sum(1, keepdim=True).clamp(min=1).to(hidden.dtype)


def last_pooled(hidden: Tensor, mask: Tensor) -> Tensor:
    """The state (M, H) of the last token at which `mask` (M, T) is True; zeros where it nowhere is."""
    return _state_of(hidden, mask, torch.arange(1, mask.shape[1] + 1, device=mask.device))


def _state_of(hidden: Tensor, mask: Tensor, rank: Tensor) -> Tensor:
    """The state (M, H) of the pooled token with the highest `rank` (T,), positive; zeros for none."""
    place = (mask * rank).argmax(1)  # (M,)
    index = place[:, None, None].expand(-1, 1, hidden.shape[2])
    state = wide(hidden.gather(1, index).squeeze(1))
    return state.masked_fill(~mask.any(1, keepdim=True), 0.0)


def _no_settings(self: nn.Module) -> dict[str, Setting]:
    """Nothing: the name says all."""
    return {}


def _itself(self: Module, layer: int) -> Module:
    """The pooling itself: nothing of it depends on the layer."""
    return self


def _nothing_to_freeze(self: nn.Module, layers: Collection[int], *, varying: bool) -> None:
    """Do nothing: there is no parameter that a plan could leave out."""


@register
class Mean(nn.Module):
    """The average of the pooled tokens, (M, H)."""

    name: ClassVar[str] = "mean"
    sentence_transformers_key: ClassVar[str] = "pooling_mode_mean_tokens"
    needs_all_layers: ClassVar[bool] = False
    needs_eos: ClassVar[bool] = False

    def forward(self, hiddens: Sequence[Tensor], mask: Tensor, layer: int) -> Tensor:
        """(M, H) from the last of `hiddens` (M, T, H) and `mask` (M, T) bool."""
        return masked_mean(hiddens[-1], mask)

    settings, cut, restrict = _no_settings, _itself, _nothing_to_freeze


@register
class MeanSqrt(nn.Module):
    """The sum of the n pooled tokens over the square root of n, (M, H): longer texts, longer vectors."""

    name: ClassVar[str] = "mean_sqrt_len"
    sentence_transformers_key: ClassVar[str] = "pooling_mode_mean_sqrt_len_tokens"
    needs_all_layers: ClassVar[bool] = False
    needs_eos: ClassVar[bool] = False

    def forward(self, hiddens: Sequence[Tensor], mask: Tensor, layer: int) -> Tensor:
        """(M, H) from the last of `hiddens` (M, T, H) and `mask` (M, T) bool."""
        hidden = pooled_only(hiddens[-1], mask)
        return hidden.sum(1) / mask.sum(1, keepdim=True).clamp(min=1).to(hidden.dtype).sqrt()

    settings, cut, restrict = _no_settings, _itself, _nothing_to_freeze


@register
class Cls(nn.Module):
    """The first pooled token, (M, H), on whichever side the padding is."""

    name: ClassVar[str] = "cls"
    sentence_transformers_key: ClassVar[str] = "pooling_mode_cls_token"
    needs_all_layers: ClassVar[bool] = False
    needs_eos: ClassVar[bool] = False

    def forward(self, hiddens: Sequence[Tensor], mask: Tensor, layer: int) -> Tensor:
        """(M, H) from the last of `hiddens` (M, T, H) and `mask` (M, T) bool."""
        return _state_of(hiddens[-1], mask, torch.arange(mask.shape[1], 0, -1, device=mask.device))

    settings, cut, restrict = _no_settings, _itself, _nothing_to_freeze


@register
class LastToken(nn.Module):
    """The last pooled token, (M, H), on whichever side the padding is: the usual choice for causal decoders.

    It sees all of a causal text. Only an end token is the same for all texts and free to sum them up, so
    texts must end in one. Design 1 of Tang & Yang 2024 (2409.02727) with causal attention.
    """

    name: ClassVar[str] = "eos"
    sentence_transformers_key: ClassVar[str] = "pooling_mode_lasttoken"
    needs_all_layers: ClassVar[bool] = False
    needs_eos: ClassVar[bool] = True

    def forward(self, hiddens: Sequence[Tensor], mask: Tensor, layer: int) -> Tensor:
        """(M, H) from the last of `hiddens` (M, T, H) and `mask` (M, T) bool."""
        return last_pooled(hiddens[-1], mask)

    settings, cut, restrict = _no_settings, _itself, _nothing_to_freeze


@register
class WeightedMean(nn.Module):
    """Σ i·h_i / Σ i over the pooled tokens i = 1..n, (M, H): later tokens, which saw more, weigh more.

    SGPT (Muennighoff 2022, 2202.08904, equation 2), for causal decoders. sentence-transformers counts i from
    the first real token and so gives other weights to a text whose prompt is left out.
    """

    name: ClassVar[str] = "weighted_mean"
    sentence_transformers_key: ClassVar[str] = "pooling_mode_weightedmean_tokens"
    needs_all_layers: ClassVar[bool] = False
    needs_eos: ClassVar[bool] = False

    def forward(self, hiddens: Sequence[Tensor], mask: Tensor, layer: int) -> Tensor:
        """(M, H) from the last of `hiddens` (M, T, H) and `mask` (M, T) bool."""
        hidden = pooled_only(hiddens[-1], mask)
        weights = (mask.cumsum(1) * mask).to(hidden.dtype)  # (M, T): 1..n on the pooled tokens
        total = weights.sum(1, keepdim=True).clamp(min=1)
        return (hidden * weights.unsqueeze(-1)).sum(1) / total

    settings, cut, restrict = _no_settings, _itself, _nothing_to_freeze


@register
class Max(nn.Module):
    """The largest value of each coordinate over the pooled tokens, (M, H)."""

    name: ClassVar[str] = "max"
    sentence_transformers_key: ClassVar[str] = "pooling_mode_max_tokens"
    needs_all_layers: ClassVar[bool] = False
    needs_eos: ClassVar[bool] = False

    def forward(self, hiddens: Sequence[Tensor], mask: Tensor, layer: int) -> Tensor:
        """(M, H) from the last of `hiddens` (M, T, H) and `mask` (M, T) bool."""
        hidden = wide(hiddens[-1]).masked_fill(~mask.unsqueeze(-1), float("-inf"))
        return hidden.amax(1).masked_fill(~mask.any(1, keepdim=True), 0.0)

    settings, cut, restrict = _no_settings, _itself, _nothing_to_freeze
