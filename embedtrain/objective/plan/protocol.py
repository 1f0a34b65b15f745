"""What a plan is."""

from __future__ import annotations

from typing import Protocol

from embedtrain.types import Chosen, SubModel


class Plan(Protocol):
    """Optimiser step (0, 1, ...) to the sub-models trained at it."""

    sub_models: tuple[SubModel, ...]  # all it may ever train that can be exported, ascending

    def __call__(self, step: int) -> Chosen:
        """What trains at this step, layer `num_layers` always among it."""
        ...
