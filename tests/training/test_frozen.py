import pytest
import torch
from torch import nn

from embedtrain.model.pooling import Mean, MultiLayer
from embedtrain.objective.plan import Dims, FixedPairs, Full, Random2d
from embedtrain.training.frozen import FrozenWeights, restrict_pooling
from embedtrain.types import InputError

SIZE = {"num_layers": 4, "width": 8}


def own_sets() -> MultiLayer:
    return MultiLayer(hidden_size=8, num_layers=4, shared=False, latents=2)


def trained_layers(pooling: MultiLayer) -> list[int]:
    return [
        layer
        for layer in range(1, 5)
        if all(value.requires_grad for value in pooling.sets.of(layer).parameters())
    ]


@pytest.mark.parametrize(
    ("plan", "layers"),
    [
        (Full(**SIZE), [4]),
        (Dims(dims=[2, 8], **SIZE), [4]),
        (FixedPairs(pairs=[[1, 2], [3, 4], [4, 8]], **SIZE), [1, 3, 4]),
    ],
)
def test_only_the_layers_of_the_plan_are_trained(plan, layers):
    pooling = own_sets()
    restrict_pooling(pooling, plan)
    assert trained_layers(pooling) == layers


def test_a_plan_that_changes_its_layers_needs_shared_parameters():
    plan = Random2d(dims=[2, 8], seed=0, **SIZE)
    with pytest.raises(InputError, match="pooling: shared=false gives each layer parameters of its own"):
        restrict_pooling(own_sets(), plan)
    shared = MultiLayer(hidden_size=8, num_layers=4, latents=2)
    restrict_pooling(shared, plan)
    assert all(value.requires_grad for value in shared.parameters())
    restrict_pooling(Mean(), plan)


class Tuned(nn.Module):
    """A frozen base and something trained, some of it frozen too."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Sequential(nn.Linear(3, 3).requires_grad_(False), nn.Linear(3, 2))
        self.head = nn.Linear(2, 2).requires_grad_(False)


def test_frozen_weights_are_left_out_and_put_back():
    module = Tuned()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    checkpoint = {"state_dict": module.state_dict()}
    FrozenWeights(module, "base.").leave_out(checkpoint)
    assert set(checkpoint["state_dict"]) == {"base.1.weight", "base.1.bias", "head.weight", "head.bias"}
    module.base[1].weight.data += 1
    FrozenWeights(module, "base.").put_back(checkpoint)
    module.load_state_dict(
        {**checkpoint["state_dict"], "base.1.weight": before["base.1.weight"]}, strict=True
    )
    assert all(
        torch.equal(value, before[name]) for name, value in module.state_dict().items() if name[5] != "1"
    )


def test_another_base_is_refused():
    module = Tuned()
    checkpoint = {"state_dict": module.state_dict()}
    FrozenWeights(module, "base.").leave_out(checkpoint)
    module.base[0].weight.data += 1e-6
    with pytest.raises(
        InputError, match="are not those that this run began with, so its checkpoint does not"
    ):
        FrozenWeights(module, "base.").put_back(checkpoint)


def test_a_checkpoint_of_a_module_without_frozen_weights_stays_as_it_is():
    module = nn.Linear(2, 2)
    checkpoint = {"state_dict": module.state_dict()}
    FrozenWeights(module, "").leave_out(checkpoint)
    assert checkpoint.keys() == {"state_dict"}
    assert set(checkpoint["state_dict"]) == {"weight", "bias"}
    FrozenWeights(module, "").put_back(checkpoint)
    assert checkpoint.keys() == {"state_dict"}
