"""Any plan, with weights of sub-models that are functions of the step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from embedtrain.objective.plan.protocol import Plan
from embedtrain.objective.schedule import Schedule, at
from embedtrain.objective.settings import not_negative
from embedtrain.types import Chosen, InputError, SubModel, Weighted

KEYS = ("layer", "dim", "weight")


class Scheduled:
    """The sub-models of another plan; some of their weights are multiplied by a number of the step.

    Args:
        plan: what is trained at each step.
        weights: `{layer, dim, weight}` each; a layer or dim left out means all of them, and a sub-model that
            several entries fit is multiplied by each. The weight is a number or a schedule, 0 or more.

    Raises:
        InputError: for an entry with other keys, one that fits no sub-model of the plan, or no entry.
    """

    def __init__(self, plan: Plan, weights: Sequence[Mapping[str, Any]]) -> None:
        if not weights:
            raise InputError("weights must have at least one {layer, dim, weight}")
        self._plan = plan
        self.sub_models = plan.sub_models
        self._factors = tuple(_entry(entry, plan.sub_models) for entry in weights)

    def __call__(self, step: int) -> Chosen:
        """What the plan chooses, weighted.

        Raises:
            InputError: if a schedule falls below 0, or all weights of the step are 0.
        """
        factors = [(fits, at(weight, step)) for fits, weight in self._factors]
        if any(factor < 0 for _, factor in factors):
            raise InputError(f"a weight of the plan is below 0 at step {step}: keep schedules at 0 or more")
        chosen = tuple(
            Weighted(sub, weight * math.prod(factor for fits, factor in factors if sub in fits))
            for sub, weight in self._plan(step)
        )
        if not any(weight for _, weight in chosen):
            raise InputError(f"all weights of the plan are 0 at step {step}: nothing would train")
        return chosen


def _entry(
    entry: Mapping[str, Any], sub_models: Sequence[SubModel]
) -> tuple[frozenset[SubModel], float | Schedule]:
    if "weight" not in entry or any(key not in KEYS for key in entry):
        raise InputError(f"an entry of weights has layer, dim and weight, got {dict(entry)}")
    fits = frozenset(
        sub
        for sub in sub_models
        if entry.get("layer", sub.layer) == sub.layer and entry.get("dim", sub.dim) == sub.dim
    )
    if not fits:
        raise InputError(
            f"weights name layer {entry.get('layer', 'any')}, dim {entry.get('dim', 'any')}, which the plan "
            f"does not train; it trains {', '.join(map(str, sub_models))}"
        )
    return fits, not_negative("weight", entry["weight"])
