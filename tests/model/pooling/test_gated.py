"""The gated mean: each token times a gate that a query of the layer opens, against a slow version."""

import math

import pytest
import torch
from torch import nn

from embedtrain.model.pooling import GatedMean, Mean, named_pooling
from embedtrain.model.pooling.gated import as_glu, from_glu

LAYERS, WIDTH = 3, 8
SIZE = {"hidden_size": WIDTH, "num_layers": LAYERS}


@pytest.fixture
def states():
    """(LAYERS, 3, 5, WIDTH) and a ragged mask, the last text without any token."""
    generator = torch.Generator().manual_seed(4)
    mask = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 1, 0, 1], [0, 0, 0, 0, 0]]).bool()
    return torch.randn(LAYERS, 3, 5, WIDTH, generator=generator, dtype=torch.float64), mask


def trained():
    pooling = GatedMean(**SIZE).double()
    torch.manual_seed(1)
    with torch.no_grad():
        pooling.queries.normal_()
    return pooling


def sigmoid(number):
    return 1 / (1 + math.exp(-number))


def slow(query, tokens):
    gates = [sigmoid(float(query @ token) - 2) / sigmoid(-2) for token in tokens]
    return sum(gate * token for gate, token in zip(gates, tokens, strict=True)) / len(tokens)


@pytest.mark.parametrize("layer", range(1, LAYERS + 1))
def test_equals_the_slow_version(layer, states):
    hiddens, mask = states
    pooling = trained()
    with torch.no_grad():
        found = pooling([hiddens[layer - 1]], mask, layer)
        for row in (0, 1):
            expected = slow(pooling.queries[layer - 1], hiddens[layer - 1, row, mask[row]])
            torch.testing.assert_close(found[row], expected)
    assert not found[2].any()


def test_begins_as_the_mean(states):
    hiddens, mask = states
    fresh = named_pooling("gated_mean", **SIZE)
    for layer in range(1, LAYERS + 1):
        expected = Mean()([hiddens[layer - 1]], mask, layer)
        torch.testing.assert_close(fresh([hiddens[layer - 1]], mask, layer), expected)


def test_large_scores_stay_finite_and_masked_states_reach_no_gradient(states):
    hiddens, mask = states
    hiddens = hiddens.masked_fill(~mask.unsqueeze(-1), math.inf).requires_grad_()
    pooling = trained()
    with torch.no_grad():
        pooling.queries.mul_(1e4)
    pooling([hiddens[0]], mask, 1).sum().backward()
    assert pooling.queries.grad.isfinite().all()
    assert hiddens.grad.isfinite().all()


def test_a_cut_keeps_the_queries_of_its_layers(states):
    hiddens, mask = states
    pooling = trained()
    small = pooling.cut(2)
    assert small.queries.shape == (2, WIDTH)
    torch.testing.assert_close(small([hiddens[1]], mask, 2), pooling([hiddens[1]], mask, 2), rtol=0, atol=0)


@pytest.mark.parametrize("layer", [0, LAYERS + 1])
def test_refuses_a_layer_without_a_query(layer, states):
    hiddens, mask = states
    with pytest.raises(ValueError, match=r"1\.\.3"):
        trained()([hiddens[0]], mask, layer)
    with pytest.raises(ValueError, match=r"1\.\.3"):
        trained().cut(layer)


@pytest.mark.parametrize("lr", [0.0, -1.0, math.nan])
def test_refuses_a_rate_that_is_none(lr):
    with pytest.raises(ValueError, match="lr must be above 0"):
        GatedMean(**SIZE, lr=lr)


def test_every_step_gives_the_queries_a_gradient_whatever_layers_it_trains(states):
    hiddens, mask = states
    pooling = trained()
    pooling.restrict((1, 2, 3), varying=True)
    pooling([hiddens[1]], mask, 2).sum().backward()
    per_layer = pooling.queries.grad.abs().sum(1)
    assert per_layer[1] > 0
    assert not per_layer[[0, 2]].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_linear_layer_and_glu_give_the_same_tokens_and_the_query_back(dtype, states):
    hiddens, _ = states
    pooling = trained()
    layer = nn.Linear(WIDTH, 2 * WIDTH)
    layer.load_state_dict(as_glu(pooling.queries.detach()[1].to(dtype)), assign=True)
    found = nn.functional.glu(layer(hiddens[1].to(dtype)))
    rtol, atol = (0.1, 0.1) if dtype == torch.bfloat16 else (1e-5, 1e-5)
    torch.testing.assert_close(found.double(), pooling.tokens(hiddens[1], 2), rtol=rtol, atol=atol)
    query = from_glu(layer.weight.detach(), layer.bias.detach())
    assert torch.equal(query, pooling.queries.detach()[1].to(dtype))


@pytest.mark.parametrize("place", [(0, 0), (0, 1), (WIDTH, 0), (2 * WIDTH - 1, 3)])
def test_any_other_linear_layer_is_no_gate(place):
    parts = as_glu(torch.randn(WIDTH))
    parts["weight"][place] += 1e-3
    assert from_glu(**parts) is None
    parts = as_glu(torch.randn(WIDTH))
    parts["bias"][place[0]] += 1e-3
    assert from_glu(**parts) is None
