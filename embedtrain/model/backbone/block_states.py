"""The states between the blocks of a model, collected while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import cast

from torch import Tensor, nn


@contextmanager
def kept_states(blocks: nn.ModuleList, layers: set[int]) -> Iterator[dict[int, Tensor]]:
    """While open, collects the state after each of `layers`, before any final norm; 0 is before all blocks.

    Hooks live for one forward only, so a recomputation in backward finds none and keeps nothing alive.
    """
    states: dict[int, Tensor] = {}

    def keep_output(layer: int, _block: nn.Module, _args: object, output: object) -> None:
        states[layer] = cast(Tensor, output[0] if isinstance(output, tuple) else output)

    def keep_input(_block: nn.Module, args: tuple[Tensor, ...]) -> None:
        states[0] = args[0]

    handles = [blocks[layer - 1].register_forward_hook(partial(keep_output, layer)) for layer in layers - {0}]
    if 0 in layers:
        handles.append(blocks[0].register_forward_pre_hook(keep_input))
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()
