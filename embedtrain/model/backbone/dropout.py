"""Dropout whose masks cost little on a CPU: 16 random bits decide on each number, four of one draw.

torch draws a float of a sequential generator for each number there: 10 ns, against 2. A step of MiniLM on
short texts spent 7 % of its time on that in float32, 10 % in bfloat16.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

from embedtrain.types import InputError

LEVELS = 2**16
M = TypeVar("M", bound=nn.Module)


class Dropout(nn.Dropout):
    """As torch's, `p` rounded to 1/65,536. The mask is a function of the default generator's seed."""

    def forward(self, given: Tensor) -> Tensor:
        """Each number 0 or scaled up, so that its expectation stays; on other devices torch's own.

        So it is in compiled blocks, which the draw of the mask would cut into pieces.
        """
        dropped, compiling = round(self.p * LEVELS), torch.compiler.is_compiling()
        if not self.training or not 0 < dropped < LEVELS or given.device.type != "cpu" or compiling:
            return super().forward(given)
        draws = torch.empty(-(-given.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        bits = draws.view(torch.int16)[: given.numel()].view(given.shape)
        return given.mul(bits >= dropped - LEVELS // 2).mul_(LEVELS / (LEVELS - dropped))


def with_cheap_dropout(model: M) -> M:
    """The same model, every dropout module of torch's in it drawn in this way."""
    for part in model.modules():
        if type(part) is nn.Dropout and not part.inplace:
            part.__class__ = Dropout
    return model


def set_dropout(model: nn.Module, share: float) -> None:
    """Drop this share of numbers in training wherever the model drops some, in attention too.

    The model's config stays as it is, so that what is saved is not another model.

    Raises:
        InputError: for a share outside [0, 1), or one above 0 where the model drops nothing.
    """
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share < 1:
        raise InputError(f"dropout must be a number in [0, 1), got {share!r}")
    places = list(_places(model))
    if share and not places:
        raise InputError(f"this model has no dropout that could be {share:g}: leave dropout out")
    for part, name in places:
        setattr(part, name, float(share))


def has_dropout(model: nn.Module) -> bool:
    """Whether two forwards in training differ."""
    return any(getattr(part, name) for part, name in _places(model))


def _places(model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Where shares are kept: modules of dropout, and numbers that attention without such a module has."""
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            yield part, "p"
        else:
            numbers = (name for name, value in vars(part).items() if isinstance(value, (int, float)))
            yield from ((part, name) for name in numbers if name.endswith("dropout"))
