"""Checkpoint files that are complete or absent, and known to be what was written before they are read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import nn

from embedtrain.files.atomic import atomic_file, is_disk_full
from embedtrain.files.checksum import fault_of, write_hashed
from embedtrain.files.reading import reading
from embedtrain.training.frozen import FrozenWeights
from embedtrain.types import InputError


class HashedCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, never half-written and never read damaged."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any = None,  # noqa: ANN401
    ) -> None:
        """Write `checkpoint` to `path`; an earlier file there survives any failure.

        Raises:
            InputError: if the disk is full.
        """
        write_atomically(
            Path(path), lambda file: write_hashed(file, lambda hashed: torch.save(checkpoint, hashed))
        )

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any = "cpu",  # noqa: ANN401
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """What `path` holds: tensors and plain containers only, whatever `weights_only` says.

        Raises:
            InputError: if the file is not what was written.
        """
        if fault := fault_of(Path(path)):
            raise InputError(f"{path} {fault}")
        with reading(path, "Put back a copy, or start anew with overwrite=true"):
            # Mapped: ranks of one machine share what they read of it, and take their shares alone.
            loaded: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True, mmap=True)
        return loaded


def take_weights(module: pl.LightningModule, path: Path) -> int:
    """Let `module` have the weights of a checkpoint; the optimiser steps that they were trained.

    Raises:
        InputError: if the file is not what was written.
    """
    checkpoint = HashedCheckpointIO().load_checkpoint(path)
    module.on_load_checkpoint(checkpoint)
    module.load_state_dict(checkpoint["state_dict"])
    return int(checkpoint["global_step"])


def take_encoder(encoder: nn.Module, path: Path) -> None:
    """Let an encoder have the weights of a checkpoint of any step; those that were frozen are its own.

    Raises:
        InputError: if the file is not what was written, or the frozen weights are others.
    """
    checkpoint = HashedCheckpointIO().load_checkpoint(path)
    state = checkpoint["state_dict"]
    checkpoint["state_dict"] = {name: state[name] for name in state if name.startswith("encoder.")}
    module = nn.ModuleDict({"encoder": encoder})
    FrozenWeights(module, "encoder.backbone.").put_back(checkpoint)
    module.load_state_dict(checkpoint["state_dict"])


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Call `write` on a temporary file beside `path`, sync it, and rename it to `path`.

    Raises:
        InputError: if the disk is full; nothing is left behind and an existing `path` is untouched.
    """
    try:
        with atomic_file(path) as file:
            write(file)
    except (OSError, RuntimeError) as error:
        if not is_disk_full(error):
            raise
        free = shutil.disk_usage(path.parent).free / 2**20
        raise InputError(
            f"no space left while saving {path} ({free:.0f} MiB free). The checkpoint saved before it is "
            "complete: free some space and run the same command again to continue from it"
        ) from error
