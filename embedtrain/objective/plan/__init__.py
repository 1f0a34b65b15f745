"""Which sub-models train at a step, and with what weight.

A plan is a function of the step alone: ranks agree without talking and a resumed run draws what it would have
drawn. Every plan trains layer `num_layers` at every step, so no parameter is ever without a gradient.
"""

from __future__ import annotations

from embedtrain.objective.plan.constant import Dims, FixedPairs, Full
from embedtrain.objective.plan.espresso import Espresso
from embedtrain.objective.plan.grid import Grid
from embedtrain.objective.plan.protocol import Plan, layers_of
from embedtrain.objective.plan.random2d import Random2d
from embedtrain.objective.plan.scheduled import Scheduled
from embedtrain.objective.plan.two_dmse import TwoDMSE

__all__ = [
    "Dims",
    "Espresso",
    "FixedPairs",
    "Full",
    "Grid",
    "Plan",
    "Random2d",
    "Scheduled",
    "TwoDMSE",
    "layers_of",
]
