"""Named tensors of models of one shape: sums of them, and vectors from a base. Sums are float64.

Letters: n ingredients, i one of them, theta_0 the base, delta_i = theta_i - theta_0 a task vector (Ilharco et
al. 2023, Editing Models with Task Arithmetic, 2212.04089).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from embedtrain.types import InputError

Weights = Mapping[str, Tensor]


class Probe(Protocol):
    """A loss on a few rows, of any weights."""

    def loss(self, weights: Weights) -> float:
        """The mean over all its batches, without gradient."""
        ...

    def batch_loss(self, weights: Weights, number: int) -> Tensor:
        """The loss of batch `number`, modulo their count, with gradient to `weights`."""
        ...


class Given(NamedTuple):
    """What a method merges."""

    names: Sequence[str]  # of the ingredients
    weights: Sequence[Weights]  # likewise
    base: Weights | None = None  # where a method needs it
    probe: Probe | None = None  # likewise
    seed: int = 0


class Merged(NamedTuple):
    """The weights of the new model, and what the method chose, a line each."""

    weights: dict[str, Tensor]
    chosen: tuple[str, ...] = ()


class Method(Protocol):
    """A way to merge."""

    needs: frozenset[str]  # "base", "probe"

    def check(self, runs: int) -> None:
        """Raise InputError for a number of runs that it cannot merge."""
        ...

    def __call__(self, given: Given) -> Merged:
        """The merged weights.

        Raises:
            InputError: for ingredients that it cannot merge.
        """
        ...


class AnyNumber:
    """What merges any number of runs."""

    def check(self, runs: int) -> None:
        """As `Method.check`."""


def check_alike(names: Sequence[str], weights: Sequence[Weights]) -> None:
    """Check that all have the same tensors, of the same shapes, finite.

    Raises:
        InputError: naming the first tensor that differs, and where.
    """
    first = weights[0]
    for name, other in zip(names, weights, strict=True):
        for key in sorted(first.keys() ^ other.keys()):
            has, lacks = (names[0], name) if key in first else (name, names[0])
            raise InputError(f"{has} has {key} and {lacks} has not: they are models of different kinds")
        for key, tensor in other.items():
            if tensor.shape != first[key].shape:
                raise InputError(
                    f"{key} is {tuple(first[key].shape)} in {names[0]} and {tuple(tensor.shape)} in {name}: "
                    "they are models of different sizes"
                )
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise InputError(f"{name}: {key} has numbers that are not finite")


def each(function: Callable[..., Tensor], *weights: Weights) -> dict[str, Tensor]:
    """Tensor by tensor, what a function of float64 tensors gives, in the dtype of the first.

    Tensors of whole numbers are those of the first.
    """
    first = weights[0]
    return {
        key: function(*(every[key].double() for every in weights)).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor.clone()
        for key, tensor in first.items()
    }


def mixed(weights: Sequence[Weights], shares: Sequence[float]) -> dict[str, Tensor]:
    """The sum of share · weights."""

    def total(*tensors: Tensor) -> Tensor:
        found = tensors[0] * shares[0]
        for tensor, share in zip(tensors[1:], shares[1:], strict=True):
            found += tensor * share
        return found

    return each(total, *weights)


def from_base(base: Weights, weights: Sequence[Weights], factors: Sequence[float]) -> dict[str, Tensor]:
    """theta_0 + the sum of factor · delta_i."""

    def total(start: Tensor, *tensors: Tensor) -> Tensor:
        found = start.clone()
        for tensor, factor in zip(tensors, factors, strict=True):
            found += (tensor - start) * factor
        return found

    return each(total, base, *weights)


def listed(name: str, values: Sequence[float]) -> str:
    """Numbers as a line."""
    return f"{name}: {', '.join(f'{value:.4g}' for value in values)}"


def floats(weights: Weights) -> list[str]:
    """The names of what is merged: tensors that are no whole numbers."""
    return [key for key, tensor in weights.items() if tensor.is_floating_point()]
