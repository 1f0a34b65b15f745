"""One vector per text from the states of its tokens. Letters: M texts, T tokens, D width.

The mask is True on the tokens that are pooled: real ones, less those of a prompt that is left out. It is not
the attention mask. Sums are float32 whatever the states are (float64 stays float64).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from embedtrain.types import InputError


@runtime_checkable
class Pooling(Protocol):
    """States after blocks 1..n to one vector per text.

    A pooling is an `nn.Module`. One that uses only the state after block n says `needs_all_layers = False`
    and is given that state alone.
    """

    name: ClassVar[str]  # what folders and configs call it
    needs_all_layers: ClassVar[bool]

    def __call__(self, hiddens: Sequence[Tensor], mask: Tensor) -> Tensor:
        """(M, D) float32 from `hiddens`, each (M, T, D), and `mask` (M, T) bool."""
        ...


class Mean(nn.Module):
    """The average of the pooled tokens, (M, D); zero for a text without any."""

    name: ClassVar[str] = "mean"
    needs_all_layers: ClassVar[bool] = False

    def forward(self, hiddens: Sequence[Tensor], mask: Tensor) -> Tensor:
        """(M, D) from the last of `hiddens` (M, T, D) and `mask` (M, T) bool."""
        hidden = _wide(hiddens[-1])
        weights = mask.unsqueeze(-1).to(hidden.dtype)  # (M, T, 1)
        return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)


class Cls(nn.Module):
    """The first pooled token, (M, D), on whichever side the padding is."""

    name: ClassVar[str] = "cls"
    needs_all_layers: ClassVar[bool] = False

    def forward(self, hiddens: Sequence[Tensor], mask: Tensor) -> Tensor:
        """(M, D) from the last of `hiddens` (M, T, D) and `mask` (M, T) bool."""
        first = mask.to(torch.int32).argmax(1)  # (M,)
        rows = torch.arange(len(first), device=first.device)
        return _wide(hiddens[-1][rows, first])


POOLINGS: dict[str, type[Mean] | type[Cls]] = {kind.name: kind for kind in (Mean, Cls)}


def named_pooling(name: str) -> Pooling:
    """The pooling a folder or config names. Raises InputError with the known names for any other."""
    if name not in POOLINGS:
        raise InputError(f"pooling {name!r} is not supported; supported are {', '.join(sorted(POOLINGS))}")
    return POOLINGS[name]()


def pool_mask(mask: Tensor, prompt_len: Tensor) -> Tensor:
    """Real tokens after the prompt, (M, T) bool, from `mask` (M, T) and `prompt_len` (M,).

    Counted over real tokens, so it holds on either padding side.
    """
    return mask & (mask.cumsum(1) > prompt_len.unsqueeze(1))


def _wide(hidden: Tensor) -> Tensor:
    return hidden if hidden.dtype == torch.float64 else hidden.float()
