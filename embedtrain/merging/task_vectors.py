"""Merging by what training changed: task arithmetic, TIES and DARE.

Letters: theta_0 the base, delta_i = theta_i - theta_0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from embedtrain.content_ids import content_id
from embedtrain.merging.weights import AnyNumber, Given, Merged, Weights, each, floats, from_base, listed
from embedtrain.types import InputError

NEEDS = frozenset({"base"})


class TaskArithmetic(AnyNumber):
    """theta_0 + scale · Σ delta_i (Ilharco et al. 2023, 2212.04089).

    Args:
        scale: of the sum; Yadav et al. 2023 use 0.4 where nothing validates it. 1 / n gives the average.

    Raises:
        InputError: for a scale that is not above 0.
    """

    needs = NEEDS

    def __init__(self, scale: float = 0.4) -> None:
        self.scale = _checked_scale(scale)

    def __call__(self, given: Given) -> Merged:
        """As `Method`."""
        assert given.base is not None
        return Merged(from_base(given.base, given.weights, [self.scale] * len(given.weights)))


class Ties(AnyNumber):
    """theta_0 + scale · the mean of what agrees (Yadav et al. 2023, TIES-Merging, 2306.01708, algorithm 1).

    Trim: of each delta the largest numbers stay, over all tensors together. Elect: a place takes the sign of
    the sum there. Merge: the mean of the numbers that have this sign.

    Args:
        density: share of each delta that stays; the paper's 20 %.
        scale: of the merged vector; the paper's 1 where nothing validates it.

    Raises:
        InputError: for a density outside 0..1, or a scale that is not above 0.
    """

    needs = NEEDS

    def __init__(self, density: float = 0.2, scale: float = 1.0) -> None:
        self.density, self.scale = _checked_share("density", density), _checked_scale(scale)

    def __call__(self, given: Given) -> Merged:
        """As `Method`."""
        assert given.base is not None
        least = [_threshold(given.base, weights, self.density) for weights in given.weights]

        def merged(start: Tensor, *tensors: Tensor) -> Tensor:
            moved = [_trimmed(tensor - start, bound) for tensor, bound in zip(tensors, least, strict=True)]
            return start + self.scale * elected(moved)

        return Merged(
            each(merged, given.base, *given.weights), (listed("smallest change that stays", least),)
        )


class Dare(AnyNumber):
    """theta_0 + scale · Σ of deltas with numbers left out by chance (Yu et al. 2024, DARE, 2311.03099).

    A number of a delta is 0 with probability `drop`, else divided by 1 - drop: its expectation stays.

    Args:
        drop: share that is left out.
        scale: as of `TaskArithmetic`.

    Raises:
        InputError: for a drop outside 0..1 or of 1, or a scale that is not above 0.
    """

    needs = NEEDS

    def __init__(self, drop: float = 0.5, scale: float = 0.4) -> None:
        if _checked_share("drop", drop) == 1:
            raise InputError("drop=1 leaves nothing of any run: give less, e.g. drop=0.5")
        self.drop, self.scale = drop, _checked_scale(scale)

    def __call__(self, given: Given) -> Merged:
        """As `Method`."""
        assert given.base is not None
        base, merged = given.base, {key: tensor.clone() for key, tensor in given.base.items()}
        for key in floats(base):
            start = base[key].double()
            merged[key] = (start + self.scale * self.together(self.thinned(given, key))).to(base[key].dtype)
        return Merged(merged)

    def together(self, deltas: Sequence[Tensor]) -> Tensor:
        """What several deltas make."""
        return torch.stack(list(deltas)).sum(0)

    def thinned(self, given: Given, key: str) -> list[Tensor]:
        """The deltas of a tensor, a share left out of each: a function of seed, ingredient and tensor."""
        assert given.base is not None
        found = []
        for number, weights in enumerate(given.weights):
            delta = weights[key].double().cpu() - given.base[key].double().cpu()
            generator = torch.Generator().manual_seed(content_id(f"{given.seed} {number} {key}"))
            stays = torch.rand(delta.shape, generator=generator, dtype=torch.float64) >= self.drop
            found.append(delta * stays / (1 - self.drop))
        return found


class DareTies(Dare):
    """DARE's deltas, merged as TIES elects and merges; nothing more is trimmed.

    Args:
        drop: as of `Dare`.
        scale: as of `Ties`.
    """

    def __init__(self, drop: float = 0.5, scale: float = 1.0) -> None:
        super().__init__(drop, scale)

    def together(self, deltas: Sequence[Tensor]) -> Tensor:
        """As `elected`."""
        return elected(deltas)


def elected(deltas: Sequence[Tensor]) -> Tensor:
    """Of each place, the mean of the numbers whose sign is that of their sum; 0 where none is."""
    every = torch.stack(list(deltas))  # (n, ...)
    agree = (every.sign() == every.sum(0).sign()) & (every != 0)
    return (every * agree).sum(0) / agree.sum(0).clamp(min=1)


def _threshold(base: Weights, weights: Weights, density: float) -> float:
    """The smallest size of a change that belongs to the largest `density` of a delta."""
    sizes = torch.cat([(weights[key].double() - base[key].double()).abs().flatten() for key in floats(base)])
    count = round(density * sizes.numel())
    return float("inf") if count == 0 else float(sizes.kthvalue(sizes.numel() - count + 1).values)


def _trimmed(delta: Tensor, least: float) -> Tensor:
    return delta * (delta.abs() >= least)


def _checked_share(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise InputError(f"{name} must be in 0..1, got {value}")
    return value


def _checked_scale(value: float) -> float:
    if not value > 0:
        raise InputError(f"scale must be above 0, got {value}")
    return value
