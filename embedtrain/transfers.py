"""Tensors of the host to a device and back, without waiting for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device, itself if it is there; from the host the copy waits for nothing."""
    if tensor.device.type == device.type == "cpu" or tensor.device == device:
        return tensor
    if tensor.device.type != "cpu":
        return tensor.to(device)  # the host must not read what has not arrived
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def fetched(tensor: Tensor) -> Callable[[], Tensor]:
    """What gives the tensor on the host: a GPU sends it as soon as it is made, and only the call waits."""
    if tensor.device.type != "cuda":
        return tensor.cpu
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    there = torch.cuda.Event()  # type: ignore[no-untyped-call]
    there.record(torch.cuda.current_stream(tensor.device))

    def arrived() -> Tensor:
        there.synchronize()
        return host

    return arrived


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
