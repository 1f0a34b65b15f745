"""Tensors of the host to a device, without waiting for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device, itself if it is there; from the host the copy waits for nothing."""
    if tensor.device.type == device.type == "cpu" or tensor.device == device:
        return tensor
    if tensor.device.type != "cpu":
        return tensor.to(device)  # the host must not read what has not arrived
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def moved_together(tensors: Sequence[Tensor | None], device: torch.device) -> list[Tensor | None]:
    """Several small tensors on a device, by one copy for each dtype; None stays None."""
    result = list(tensors)
    if device.type == "cpu":
        return [None if item is None else item.to(device) for item in result]
    for dtype in dict.fromkeys(item.dtype for item in result if item is not None):
        places = [place for place, item in enumerate(result) if item is not None and item.dtype == dtype]
        alike = [item for item in (result[place] for place in places) if item is not None]
        whole = moved(torch.cat([item.flatten() for item in alike]), device)
        parts = torch.split(whole, [item.numel() for item in alike])
        for place, item, part in zip(places, alike, parts, strict=True):
            result[place] = part.view(item.shape)
    return result
