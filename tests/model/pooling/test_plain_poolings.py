"""Poolings without parameters against slow versions that look at one text at a time."""

import pytest
import torch

from embedtrain.model.pooling import Cls, LastToken, Max, Mean, WeightedMean

MASK = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 1, 0, 0, 0]], dtype=torch.bool)
HIDDEN = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))


def by_position(states):
    weighted = sum((place + 1) * state for place, state in enumerate(states))
    return weighted / sum(place + 1 for place in range(len(states)))


SLOW = {
    Mean: lambda states: states.mean(0),
    Cls: lambda states: states[0],
    LastToken: lambda states: states[-1],
    WeightedMean: by_position,
    Max: lambda states: torch.stack([max(column) for column in states.T]),
}


@pytest.mark.parametrize("kind", SLOW, ids=lambda kind: kind.name)
def test_equals_the_slow_version(kind):
    slow = torch.stack([SLOW[kind](HIDDEN[row][MASK[row]]) for row in range(4)])
    torch.testing.assert_close(kind()([HIDDEN], MASK, 1), slow, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", [Cls, LastToken, Max], ids=lambda kind: kind.name)
def test_what_only_selects_is_exact(kind):
    slow = torch.stack([SLOW[kind](HIDDEN[row][MASK[row]]) for row in range(4)])
    assert torch.equal(kind()([HIDDEN], MASK, 1), slow)


def test_the_largest_value_may_be_negative():
    assert torch.equal(Max()([-HIDDEN.abs() - 1], MASK, 1)[3], -HIDDEN.abs()[3, 1] - 1)


@pytest.mark.parametrize("kind", [Mean, WeightedMean], ids=lambda kind: kind.name)
def test_sums_are_float32(kind):
    # 2049 is not a bfloat16 number: a sum in bfloat16 would stop growing at 256 here.
    ones = torch.ones(1, 2049, 1, dtype=torch.bfloat16)
    every = torch.ones(1, 2049, dtype=torch.bool)
    assert kind()([ones], every, 1).item() == 1.0


@pytest.mark.parametrize("kind", SLOW, ids=lambda kind: kind.name)
def test_nothing_is_set_cut_or_frozen(kind):
    pooling = kind()
    assert pooling.settings() == {}
    assert pooling.cut(1) is pooling
    pooling.restrict({1}, varying=True)
    assert list(pooling.parameters()) == []
