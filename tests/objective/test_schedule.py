"""Schedules of numbers, and plans whose weights follow them."""

import pytest

from embedtrain.objective.plan import FixedPairs, Scheduled
from embedtrain.objective.schedule import Cosine, Linear, Stairs, at
from embedtrain.settings.component import Component
from embedtrain.types import InputError, SubModel

SIZE = {"num_layers": 4, "width": 8}


def test_values_between_and_outside_the_ends():
    line = Linear(1.0, 0.0, steps=10, begin=5)
    assert [line(step) for step in (0, 5, 10, 15, 99)] == [1.0, 1.0, 0.5, 0.0, 0.0]
    curve = Cosine(2.0, 0.0, steps=4)
    assert [round(curve(step), 6) for step in (0, 1, 2, 3, 4, 9)] == [2.0, 1.707107, 1.0, 0.292893, 0.0, 0.0]
    stairs = Stairs({100: 0.5, 0: 1.0})
    assert [stairs(step) for step in (0, 99, 100, 1000)] == [1.0, 1.0, 0.5, 0.5]
    assert at(0.3, 7) == 0.3
    assert at(line, 10) == 0.5


def test_plan_weights_follow_the_step():
    plan = Scheduled(
        FixedPairs([[2, 4], [3, 8], [4, 8]], [1.0, 2.0, 3.0], **SIZE),
        [{"layer": 2, "weight": Linear(0.0, 1.0, 10)}, {"dim": 8, "weight": 0.5}],
    )
    assert plan.sub_models == (SubModel(2, 4), SubModel(3, 8), SubModel(4, 8))
    assert [weight for _, weight in plan(5)] == [0.5, 1.0, 1.5]
    assert [weight for _, weight in plan(50)] == [1.0, 1.0, 1.5]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([], "at least one"),
        ([{"layer": 2}], "has layer, dim and weight"),
        ([{"layer": 1, "weight": 1.0}], r"layer 1, dim any, which the plan does not train.*L2_D4"),
        ([{"dim": 8, "weight": -1.0}], "weight must be 0 or more, got -1.0"),
    ],
)
def test_plan_weights_that_fit_nothing(weights, message):
    with pytest.raises(InputError, match=message):
        Scheduled(FixedPairs([[2, 4], [4, 8]], **SIZE), weights)


def test_a_schedule_that_leaves_nothing_to_train_is_refused():
    plan = Scheduled(FixedPairs([[4, 8]], **SIZE), [{"weight": Linear(1.0, -1.0, 10)}])
    with pytest.raises(InputError, match="all weights of the plan are 0 at step 5"):
        plan(5)
    with pytest.raises(InputError, match="below 0 at step 6"):
        plan(6)


def test_nested_nodes_of_a_config_get_what_the_run_knows():
    node = {
        "_target_": "embedtrain.objective.plan.Scheduled",
        "plan": {"_target_": "embedtrain.objective.plan.FixedPairs", "pairs": [[2, 4], [4, 8]]},
        "weights": [
            {
                "layer": 2,
                "weight": {
                    "_target_": "embedtrain.objective.schedule.Linear",
                    "start": 0,
                    "end": 1,
                    "steps": 2,
                },
            }
        ],
    }
    assert [weight for _, weight in Component.of(node, "plan").build(seed=0, **SIZE)(1)] == [0.5, 1.0]
