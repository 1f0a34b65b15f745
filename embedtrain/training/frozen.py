"""What a run does not train: parts of a pooling that its plan never reaches, and weights that are frozen."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from torch import Tensor, nn

from embedtrain.model.folder.contract import tensors_hash
from embedtrain.model.pooling import Pooling
from embedtrain.objective.plan import Plan, layers_of
from embedtrain.types import InputError

KEY = "frozen_hash"


def restrict_pooling(pooling: Pooling, plan: Plan) -> None:
    """Freeze what a pooling has for layers that the plan never trains; call it before the optimiser is built.

    Raises:
        InputError: when the pooling has parameters for each layer and the plan changes its layers.
    """
    layers, varying = layers_of(plan)
    try:
        pooling.restrict(layers, varying=varying)
    except ValueError as error:
        raise InputError(f"pooling: {error}") from error


class FrozenWeights:
    """The frozen weights of a module, which its checkpoints leave out and name by a hash.

    They are what the run loaded, so they are there again when it is continued. Of a 7B decoder with LoRA that
    leaves 0.1 GiB of 14.

    Args:
        module: the module whose state dict is saved; what is frozen is settled.
        prefix: of the names that may be left out.
    """

    def __init__(self, module: nn.Module, prefix: str) -> None:
        self._module, self._prefix = module, prefix

    def settle(self) -> None:
        """Take the hash now, before the weights are cast or spread over ranks."""
        if self._names:
            _ = self._hash

    def leave_out(self, checkpoint: dict[str, Any]) -> None:
        """Take the frozen weights out of a checkpoint's `state_dict`."""
        if self._names:  # a rank that does not write may hold no state at all
            state = checkpoint["state_dict"]
            checkpoint["state_dict"] = {name: state[name] for name in state if name not in self._names}
            checkpoint[KEY] = self._hash

    def put_back(self, checkpoint: dict[str, Any]) -> None:
        """Put them into a checkpoint that was saved without.

        Raises:
            InputError: when they are others than those of the run that saved it.
        """
        if KEY not in checkpoint:
            return
        if checkpoint[KEY] != self._hash:
            raise InputError(
                "the frozen weights of the backbone are not those that this run began with, so its "
                "checkpoint does not fit them: give the backbone it began with, or start anew "
                "with overwrite=true"
            )
        checkpoint["state_dict"] = {**checkpoint["state_dict"], **self._state()}

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(
            name
            for name, value in self._module.named_parameters()
            if not value.requires_grad and name.startswith(self._prefix)
        )

    @cached_property
    def _hash(self) -> str:
        return tensors_hash(self._state())

    def _state(self) -> dict[str, Tensor]:
        state = self._module.state_dict()
        return {name: state[name] for name in self._names}
