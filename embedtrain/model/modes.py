"""Train and eval modes of modules, and the casts of autocast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def parts_of(module: nn.Module) -> list[nn.Module]:
    """The module and all inside it, each once; `modules()` also makes their names, in ten times as long."""
    found: dict[nn.Module, None] = {}
    waiting: list[nn.Module | None] = [module]
    while waiting:
        part = waiting.pop()
        if part is not None and part not in found:
            found[part] = None
            waiting.extend(part._modules.values())
    return list(found)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode while open; afterwards each submodule has the mode it had, not that of its parent."""
    training = [part for part in parts_of(module) if part.training]
    if training:  # most often not: setting hundreds of modules takes a tenth of a short query
        module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


@contextmanager
def casting_once(device: str) -> Iterator[None]:
    """While open, autocast (where it is on) casts each weight once, not once a forward; Lightning's does not.

    Gradients of several forwards are then added up in 16 bits, as autocast does by default.
    """
    if not torch.is_autocast_enabled(device):
        yield
        return
    torch.clear_autocast_cache()  # casts without gradient, or of the weights before a step
    try:
        with torch.autocast(device, dtype=torch.get_autocast_dtype(device), cache_enabled=True):
            yield
    finally:
        torch.clear_autocast_cache()
