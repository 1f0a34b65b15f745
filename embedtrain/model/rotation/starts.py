"""What a rotation begins with: the principal axes of a layer's vectors, or axes drawn at random.

Letters: M texts, D coordinates, F reflections.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from embedtrain.model.rotation.rotation import Rotation, combined
from embedtrain.types import InputError

Start = Literal["identity", "pca", "random"]
Last = Start | Literal["none"] | None
STARTS = ("identity", "pca", "random")


class MakesRotation(Protocol):
    """What a setting says of the rotations of a model."""

    @property
    def start(self) -> Start:
        """What each begins with."""
        ...

    @property
    def last(self) -> Last:
        """What that of the last layer begins with, where it is another start; "none": it has none."""
        ...

    @property
    def sample(self) -> int:
        """Texts whose vectors a start looks at."""
        ...

    def rotation(self, layers: Sequence[int], width: int, seed: int, own: Rotation | None) -> Rotation:
        """The rotation of a model, before its start.

        Args:
            layers: that are rotated.
            width: D of the model.
            seed: of what is drawn.
            own: what the model is rotated by already; the new one comes behind it.
        """
        ...


@dataclass(frozen=True)
class Fixed:
    """A rotation a layer that training does not change.

    Args:
        start: "pca", the principal axes of the layer's own vectors of training texts, the largest first; or
            "random".
        sample: texts whose vectors are looked at.
        last: what the last layer of the backbone begins with, "identity" where that was made for its whole
            width; "none" to leave that layer as it is; `start` when not given.

    Raises:
        InputError: for a start or a number out of range.
    """

    start: Start = "pca"
    sample: int = 2048
    last: Last = None

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        _check(self.start, self.sample, self.last)

    def rotation(self, layers: Sequence[int], width: int, seed: int, own: Rotation | None) -> Rotation:
        """As `MakesRotation.rotation`."""
        return _begun((self.start, self.last), layers, width, own)


@dataclass(frozen=True)
class Householder:
    """A rotation a layer, a product of reflections that are trained, in any plan.

    Args:
        reflections: F, an even number, so that they begin as the identity.
        start: what they are put behind: "identity", or as of `Fixed`.
        lr: learning rate of their vectors, whose coordinates begin near 1: a step turns a vector by at most
            about as many radians, whatever D is.
        sample: texts whose vectors a start by "pca" looks at.
        last: as of `Fixed`.

    Raises:
        InputError: for a start or a number out of range.
    """

    reflections: int = 8
    start: Start = "identity"
    lr: float = 0.01
    sample: int = 2048
    last: Last = None

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        _check(self.start, self.sample, self.last)
        if self.reflections < 2 or self.reflections % 2:
            raise InputError(f"reflections must be an even number of 2 or more, got {self.reflections}")
        _above_zero(self.lr)

    def rotation(self, layers: Sequence[int], width: int, seed: int, own: Rotation | None) -> Rotation:
        """As `MakesRotation.rotation`; reflections come in equal pairs, of which each undoes the other."""
        begun = _begun((self.start, self.last), layers, width, own)
        generator = torch.Generator().manual_seed(seed)
        half = torch.randn(len(begun.layers), self.reflections // 2, begun.width, generator=generator)
        bases = dict(zip(begun.layers, begun.base, strict=True))
        pairs = half.repeat_interleave(2, dim=1)
        return Rotation(bases, vectors=pairs, lr=self.lr, started=bool(begun.is_started))


@dataclass(frozen=True)
class Linear:
    """A matrix a layer that is trained freely: begun as a rotation, it may stretch and mix coordinates.

    Unlike a rotation it changes similarities of whole vectors too. It gives the exit of each layer weights of
    its own, which the layers above do not read.

    Args:
        start: as of `Fixed`.
        lr: learning rate of the matrices, which never decay.
        sample: texts whose vectors a start by "pca" looks at.
        last: as of `Fixed`.

    Raises:
        InputError: for a start or a number out of range.
    """

    start: Start = "pca"
    lr: float = 1e-3
    sample: int = 2048
    last: Last = "none"

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        _check(self.start, self.sample, self.last)
        _above_zero(self.lr)

    def rotation(self, layers: Sequence[int], width: int, seed: int, own: Rotation | None) -> Rotation:
        """As `MakesRotation.rotation`."""
        begun = _begun((self.start, self.last), layers, width, own)
        bases = dict(zip(begun.layers, begun.base, strict=True))
        return Rotation(bases, lr=self.lr, free=True, started=bool(begun.is_started))


def rotated_layers(chosen: MakesRotation, layers: Iterable[int], num_layers: int) -> list[int]:
    """Which layers get a rotation.

    Args:
        chosen: what the settings say.
        layers: that are trained.
        num_layers: of the backbone.

    Raises:
        InputError: for none at all.
    """
    found = sorted(layer for layer in layers if layer < num_layers or chosen.last != "none")
    if not found:
        raise InputError(
            "rotation.last=none leaves the last layer as it is, and the plan trains no other: "
            "say rotation.last=identity, or choose a plan with more layers"
        )
    return found


def start_of(chosen: MakesRotation, layer: int, num_layers: int) -> Start:
    """What a layer begins with, behind what its backbone may have brought."""
    if layer < num_layers or chosen.last is None:
        return chosen.start
    return "identity" if chosen.last == "none" else chosen.last


def axes(start: Start, vectors: Tensor, seed: int) -> Tensor:
    """Orthogonal (D, D) that a layer begins with, float64 on the CPU.

    Args:
        start: which.
        vectors: (M, D) of some texts.
        seed: of what is drawn, another one for each layer.
    """
    width = vectors.shape[-1]
    if start == "identity":
        return torch.eye(width, dtype=torch.float64)
    return principal_axes(vectors) if start == "pca" else random_axes(width, seed)


def principal_axes(vectors: Tensor) -> Tensor:
    """The principal axes (D, D) of unit vectors as rows, the one with the largest share first.

    They are eigenvectors of Z'Z, Z the rows of `vectors` (M, D) at length one. Nothing is subtracted: a mean
    taken off would change similarities of whole vectors. Of an axis the largest coordinate is positive.
    """
    unit = F.normalize(vectors.detach().cpu().double(), dim=-1)
    found = torch.linalg.eigh(unit.T @ unit).eigenvectors.flip(1).T  # ascending, in columns
    largest = found.gather(1, found.abs().argmax(1, keepdim=True))
    turned: Tensor = found * largest.sign()
    return turned


def random_axes(width: int, seed: int) -> Tensor:
    """Orthogonal (D, D), uniform over all: Q of a normal matrix, R's diagonal positive (Mezzadri 2007)."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(width, width, generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(normal)
    uniform: Tensor = q * r.diagonal().sign()
    return uniform


def _begun(starts: tuple[Start, Last], layers: Sequence[int], width: int, own: Rotation | None) -> Rotation:
    had = {} if own is None else {layer: own.matrix(layer) for layer in own.layers}
    return Rotation(combined(had, layers, width), started=not {*starts} - {"identity", "none", None})


def _above_zero(lr: float) -> None:
    if not lr > 0:
        raise InputError(f"lr must be above 0, got {lr}")


def _check(start: str, sample: int, last: str | None) -> None:
    for setting, value, known in (("start", start, STARTS), ("last", last, (*STARTS, "none", None))):
        if value not in known:
            raise InputError(f"{setting} must be one of {', '.join(filter(None, known))}, got {value!r}")
    if sample < 2:
        raise InputError(f"sample must be 2 or more, got {sample}")
