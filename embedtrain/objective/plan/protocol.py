"""What a plan is."""

from __future__ import annotations

from typing import Protocol

from embedtrain.types import Chosen, SubModel, distinct_layers

STEPS_LOOKED_AT = 64  # of a plan, to see whether its layers change


class Plan(Protocol):
    """Optimiser step (0, 1, ...) to the sub-models trained at it."""

    sub_models: tuple[SubModel, ...]  # all it may ever train that can be exported, ascending

    def __call__(self, step: int) -> Chosen:
        """What trains at this step, layer `num_layers` always among it."""
        ...


def layers_of(plan: Plan) -> tuple[tuple[int, ...], bool]:
    """Every layer the plan may train, ascending, and whether some step trains fewer of them."""
    steps = {distinct_layers(plan(step)) for step in range(STEPS_LOOKED_AT)}
    every = tuple(
        sorted({layer for step in steps for layer in step} | {sub.layer for sub in plan.sub_models})
    )
    return every, steps != {every}
