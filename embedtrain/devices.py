"""Where a command computes, and how modules get there and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import nn

from embedtrain import ranks
from embedtrain.types import InputError


def device_of(name: str = "auto") -> torch.device:
    """The device that a setting names; "auto" is the GPU of this rank, else MPS, else the CPU.

    Raises:
        InputError: for a device that the machine does not have.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", ranks.local_rank() % torch.cuda.device_count())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device={name} is not there ({reason}): use device=auto or device=cpu") from error
    return device


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether it is a GPU of CUDA with products of bfloat16 in hardware."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def memory_of(device: torch.device) -> int | None:
    """Bytes of a GPU of CUDA; None where nobody says."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None


def has_room(device: torch.device, size: int) -> bool:
    """Whether a GPU has as many bytes free as one more block takes, and a quarter of its memory beside."""
    if device.type != "cuda":
        return True
    free, whole = torch.cuda.mem_get_info(device)
    return free - size > whole // 4


@contextmanager
def exact_float32() -> Iterator[None]:
    """While open, products of float32 are those of IEEE, whatever TF32 or bfloat16 is allowed elsewhere.

    Bounds that count on 24 bits stand in it: ties of rules (1e-6), the exact search, probes of equal vectors.
    """
    every: Any = torch.backends
    backends = every.cuda.matmul, every.mkldnn.matmul
    before = [backend.fp32_precision for backend in backends]
    for backend in backends:
        backend.fp32_precision = "ieee"
    try:
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


@contextmanager
def placed(module: nn.Module, device: torch.device) -> Iterator[None]:
    """While open, a module is on a device; afterwards it is where it was before."""
    before = next((item.device for item in chain(module.parameters(), module.buffers())), device)
    module.to(device)
    try:
        yield
    finally:
        module.to(before)
