"""An orthogonal map of the pooled vectors of each of some layers, the same for queries and documents.

Similarities of whole vectors stay as they are; those of prefixes change, since a prefix of a rotated vector
is another part of it. The map of layer l is R_l = H_1 ... H_F B_l: a fixed basis B_l with orthonormal rows,
and F Householder reflections H_i = I - 2 v v' / v'v, v trained (AdaWidth, arXiv:2608.23862). It is orthogonal
whatever v is, so no step of an optimiser and no penalty has to keep it so. A `free` one trains B_l itself,
which is a rotation at the start alone.

Letters: M texts, L layers, F reflections, W coordinates that come, D that are given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from embedtrain.files.reading import reading
from embedtrain.types import InputError

FILE = "rotation.safetensors"  # in the folder of a model: a matrix (D, W) a layer, float32
_NAME = "layer_"


class Rotation(nn.Module):
    """A map a layer; vectors of any other layer are only cut to the same width.

    Args:
        bases: layer to B (D, W), all of one shape; orthonormal rows, if the map is to be a rotation.
        vectors: (L, F, D), those of the reflections, layers ascending; none without reflections.
        lr: learning rate of what is trained; that of the optimiser when none.
        free: train the bases themselves, which then need not stay orthonormal.
        started: whether the bases are those that training, or use, begins with.

    Raises:
        ValueError: when there is no layer, or shapes do not fit each other.
    """

    base: Tensor
    is_started: Tensor

    def __init__(
        self,
        bases: Mapping[int, Tensor],
        *,
        vectors: Tensor | None = None,
        lr: float | None = None,
        free: bool = False,
        started: bool = True,
    ) -> None:
        super().__init__()
        self.layers, self.lr = tuple(sorted(bases)), lr
        if not bases or len({base.shape for base in bases.values()}) > 1:
            raise ValueError("a rotation needs matrices of one shape, one a layer")
        stacked = torch.stack([bases[layer].detach().float() for layer in self.layers])  # (L, D, W)
        if free:
            self.base = nn.Parameter(stacked)
        else:
            self.register_buffer("base", stacked)
        self.register_buffer("is_started", torch.tensor(started))
        self.width, self.taken = (int(size) for size in self.base.shape[1:])
        if vectors is not None and (len(vectors), vectors.shape[-1]) != (len(self.layers), self.width):
            raise ValueError(f"vectors must be ({len(self.layers)}, F, {self.width}), got {vectors.shape}")
        self.vectors = None if vectors is None else nn.Parameter(vectors)

    def forward(self, pooled: Tensor, layer: int) -> Tensor:
        """(M, D) of the vectors (M, W or more) of a layer; coordinates beyond W are no part of a model."""
        if layer not in self.layers:
            return pooled[..., : self.width]
        place = self.layers.index(layer)
        rotated = pooled[..., : self.taken] @ self.base[place].to(pooled.dtype).T  # (M, D)
        for vector in () if self.vectors is None else reversed(self.vectors[place].to(pooled.dtype).unbind()):
            along = rotated @ vector * (2.0 / (vector @ vector))  # (M,)
            rotated = rotated - along.unsqueeze(-1) * vector
        return rotated

    @torch.no_grad()
    def matrix(self, layer: int) -> Tensor:
        """R (D, W) of a layer, float32 on the CPU, computed in float64.

        Raises:
            ValueError: for a layer that is not rotated.
        """
        if layer not in self.layers:
            raise ValueError(f"layer {layer} is not rotated, those that are: {list(self.layers)}")
        place = self.layers.index(layer)
        rotated = self.base[place].detach().cpu().double()
        for vector in () if self.vectors is None else reversed(self.vectors[place].cpu().double().unbind()):
            rotated = rotated - (2.0 / (vector @ vector)) * torch.outer(vector, vector @ rotated)
        return rotated.float()

    @torch.no_grad()
    def start(self, maps: Mapping[int, Tensor]) -> None:
        """Begin with these orthogonal (D, D) behind the bases, by layer; a layer without one stays."""
        for place, layer in enumerate(self.layers):
            if layer in maps:
                base = self.base[place]
                base.copy_((maps[layer].double() @ base.cpu().double()).to(base))
        self.is_started.fill_(True)

    def cut(self, layer: int, dim: int) -> dict[int, Tensor]:
        """The first `dim` rows of each matrix, by layer, of a model of `layer` blocks; maybe of none."""
        return {each: self.matrix(each)[:dim] for each in self.layers if each <= layer}


def write_rotation(folder: Path, matrices: Mapping[int, Tensor]) -> None:
    """Write the matrices of a model into its folder; nothing without any."""
    if matrices:
        named = {f"{_NAME}{layer}": matrix.contiguous() for layer, matrix in matrices.items()}
        save_file(named, folder / FILE)


def read_rotation(folder: Path, again: str) -> dict[int, Tensor]:
    """The matrices in a folder by layer; none where it has no such file.

    Args:
        folder: of a model.
        again: the cure for a damaged file.

    Raises:
        InputError: when the file cannot be read, or holds anything but finite matrices of one shape.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    with reading(path, again):
        found = load_file(path)
    named = {name.removeprefix(_NAME): matrix for name, matrix in found.items()}
    if not all(layer.isdecimal() and is_finite(matrix) for layer, matrix in named.items()):
        raise InputError(f"{path} must hold matrices {_NAME}N of finite numbers. {again}")
    if len({matrix.shape for matrix in named.values()}) > 1:
        raise InputError(f"{path} must hold matrices of one shape. {again}")
    return {int(layer): matrix for layer, matrix in sorted(named.items(), key=lambda item: int(item[0]))}


def padded(matrix: Tensor, width: int) -> Tensor:
    """The same map (D, W) of vectors with further coordinates, which it leaves out: (D, `width`)."""
    return F.pad(matrix, (0, width - matrix.shape[1]))


def is_finite(matrix: Tensor) -> bool:
    """Whether it is a matrix, of finite numbers."""
    return matrix.ndim == 2 and bool(matrix.isfinite().all())


def combined(maps: Mapping[int, Tensor], layers: Sequence[int], width: int) -> dict[int, Tensor]:
    """A basis for each of some layers: the one that a model has, else the identity (D, D)."""
    some = next(iter(maps.values()), torch.eye(width))
    plain = torch.eye(*some.shape)
    return {layer: maps.get(layer, plain) for layer in sorted({*layers, *maps})}
