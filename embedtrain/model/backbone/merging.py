"""Where a model has LoRA adapters, and the model with them merged for a while, without importing peft."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Path and module of each linear layer with an adapter."""
    for path, module in model.named_modules():
        if hasattr(module, "lora_A") and hasattr(module, "get_base_layer"):
            yield path, module


@contextmanager
def merged_adapters(model: nn.Module) -> Iterator[None]:
    """While open, plain linear layers with the merged weights stand where the adapters are.

    They are new tensors; the live layers come back untouched. Without adapters nothing happens.
    """
    live = list(adapted_layers(model))
    config = vars(model).pop("peft_config", None)
    try:
        for path, layer in live:
            _put(model, path, _merge(layer))
        yield
    finally:
        for path, layer in live:
            _put(model, path, layer)
        if config is not None:
            vars(model)["peft_config"] = config


@torch.no_grad()
def _merge(layer: nn.Module) -> nn.Module:
    """A plain linear layer with the adapter added to its weight; the sum is rounded once, to its dtype."""
    copied = cast(Any, copy.deepcopy(layer))
    base = cast(nn.Linear, copied.get_base_layer())
    dtype = base.weight.dtype
    if dtype in (torch.float16, torch.bfloat16):
        base.weight.data = base.weight.data.float()
    copied.merge(safe_merge=True)
    base.weight.data = base.weight.data.to(dtype)
    return base


def _put(model: nn.Module, path: str, module: nn.Module) -> None:
    owner, _, name = path.rpartition(".")
    model.get_submodule(owner)._modules[name] = module
