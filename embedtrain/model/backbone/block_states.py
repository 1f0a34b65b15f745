"""Which blocks of a model run and how, and the states between them, collected while it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import cast

from torch import Tensor, nn
from transformers import PreTrainedModel

from embedtrain.model.backbone.families import Family


def compile_blocks(blocks: nn.ModuleList, backend: str = "inductor") -> None:
    """Let each block be compiled, by itself and once for texts of all lengths, when it first runs.

    The whole model cannot be: its blocks are exchanged and watched from one forward to the next.
    """
    for block in blocks:
        block.compile(dynamic=True, backend=backend)


@contextmanager
def running(model: PreTrainedModel, family: Family, blocks: nn.ModuleList, layers: int) -> Iterator[None]:
    """While open, the model has these blocks in the place of its own; a shared one runs `layers` times."""
    owner_path, _, name = family.blocks.rpartition(".")
    owner, own = model.get_submodule(owner_path), model.get_submodule(family.blocks)
    owner._modules[name] = blocks
    before = model.config.num_hidden_layers
    if family.shared:
        model.config.num_hidden_layers = layers
    try:
        yield
    finally:
        owner._modules[name] = own
        model.config.num_hidden_layers = before


class _EnteredError(Exception):
    """Ends a forward at the first block. Some models cannot run without any block."""

    def __init__(self, state: Tensor) -> None:
        super().__init__()
        self.state = state


def entering(block: nn.Module, run: Callable[[], object]) -> Tensor:
    """The state that `run` gives to a block, which does not run."""

    def stop(_block: nn.Module, args: tuple[Tensor, ...]) -> None:
        raise _EnteredError(args[0])

    handle = block.register_forward_pre_hook(stop)
    try:
        run()
    except _EnteredError as entered:
        return entered.state
    finally:
        handle.remove()
    raise AssertionError("the block did not run")


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
