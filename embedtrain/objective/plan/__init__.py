"""Which sub-models train at a step, and with what weight.

A plan is a function of the step alone: ranks agree without talking and a resumed run draws what it would have
drawn. Every plan trains layer `num_layers` at every step, so no parameter is ever without a gradient.
"""

from __future__ import annotations

from embedtrain.objective.plan.constant import Dims as Dims
from embedtrain.objective.plan.constant import FixedPairs as FixedPairs
from embedtrain.objective.plan.constant import Full as Full
from embedtrain.objective.plan.espresso import Espresso as Espresso
from embedtrain.objective.plan.grid import Grid as Grid
from embedtrain.objective.plan.protocol import Plan as Plan
from embedtrain.objective.plan.protocol import layers_of as layers_of
from embedtrain.objective.plan.random2d import Random2d as Random2d
from embedtrain.objective.plan.scheduled import Scheduled as Scheduled
from embedtrain.objective.plan.two_dmse import TwoDMSE as TwoDMSE
