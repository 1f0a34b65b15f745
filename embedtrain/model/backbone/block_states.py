"""The states between the blocks of a model, collected while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import cast

from torch import Tensor, nn


@contextmanager
def kept_states(
    blocks: nn.ModuleList, layers: set[int], *, between: bool = False, shared: bool = False
) -> Iterator[dict[int, Tensor]]:
    """While open, collects the state after each of `layers`, before any final norm; 0 is before all blocks.

    Hooks live for one forward only, so a recomputation in backward finds none and keeps nothing alive.

    Args:
        blocks: those that run.
        layers: the deepest that runs is none of them.
        between: take what the next block is given, since the model changes a state in between.
        shared: the only block runs as often as there are layers.
    """
    states: dict[int, Tensor] = {}

    def keep_output(layer: int, _block: nn.Module, _args: object, output: object) -> None:
        states[layer] = cast(Tensor, output[0] if isinstance(output, tuple) else output)

    def keep_input(layer: int, _block: nn.Module, args: tuple[Tensor, ...]) -> None:
        states[layer] = args[0]

    runs = count()

    def keep_run(_block: nn.Module, args: tuple[Tensor, ...]) -> None:
        layer = next(runs)
        if layer in layers:
            states[layer] = args[0]

    if shared:
        handles = [blocks[0].register_forward_pre_hook(keep_run)] if layers else []
    else:
        given = layers if between else layers & {0}
        handles = [blocks[layer].register_forward_pre_hook(partial(keep_input, layer)) for layer in given]
        handles += [
            blocks[layer - 1].register_forward_hook(partial(keep_output, layer)) for layer in layers - given
        ]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()
