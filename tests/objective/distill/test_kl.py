import pytest
import torch
from random_batches import random_embeddings

from embedtrain.objective.distill.kl import LayerKL, PrefixKL
from embedtrain.types import SubModel, Weighted


def chosen(*pairs):
    return tuple(Weighted(SubModel(*pair), 0.5) for pair in pairs)


def divergence(teacher, student):
    """Mean over rows of Σ p log(p / q)."""
    p, q = torch.softmax(teacher, -1), torch.softmax(student, -1)
    return (p * (p / q).log()).sum(-1).mean()


def slow_prefix(one, two, three):
    return 2 * 0.3 * (divergence(three[:, :2], one[:, :2]) + divergence(three[:, :5], two[:, :5]))


def slow_layers(one, two, three):
    teacher = three.detach() / 0.7
    return 2 * 0.7 * (divergence(teacher, one / 0.7) + divergence(teacher, two / 0.7))


@pytest.mark.parametrize(
    ("distill", "slow"),
    [(PrefixKL(weight=2.0), slow_prefix), (LayerKL(weight=2.0, temperature=0.7), slow_layers)],
)
def test_a_divergence_equals_its_formula(distill, slow):
    texts = random_embeddings(0, layers=3, texts=9, width=8)
    values = distill(texts, chosen((1, 2), (2, 5), (3, 8))), slow(*texts.values)
    torch.testing.assert_close(*values, rtol=1e-12, atol=0)
    gradients = (torch.autograd.grad(value, texts.values)[0] for value in values)
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("power", [0, 1, 2])
def test_the_power_of_the_temperature_multiplies(power):
    texts = random_embeddings(1, layers=2, texts=9, width=8)
    one, two = texts.values
    slow = 2 * 0.7**power * divergence(two.detach() / 0.7, one / 0.7)
    value = LayerKL(weight=2.0, temperature=0.7, power=power)(texts, chosen((1, 2), (2, 8)))
    torch.testing.assert_close(value, slow, rtol=1e-12, atol=0)


def test_raw_norms_decide_how_strong_the_divergence_is():
    texts = random_embeddings(6, layers=2, texts=9, width=8)
    unit = texts._replace(values=torch.nn.functional.normalize(texts.values, dim=-1))
    raw, normalised = (LayerKL()(each, chosen((1, 8), (2, 8))) for each in (texts, unit))
    assert raw > 3 * normalised  # coordinates of unit vectors are nearly uniform under a softmax


@pytest.mark.parametrize(
    ("distill", "reached"),
    [
        (PrefixKL(), True),
        (PrefixKL(detach_teacher=True), False),
        (LayerKL(), False),
        (LayerKL(detach_teacher=False), True),
    ],
    ids=["prefix", "prefix-detached", "layer", "layer-undetached"],
)
def test_gradient_reaches_the_teacher_only_where_it_should(distill, reached):
    texts = random_embeddings(2, layers=2, texts=6, width=8)
    gradient = torch.autograd.grad(distill(texts, chosen((1, 4), (2, 8))), texts.values)[0]
    assert gradient[0].abs().max() > 0
    assert bool(gradient[1].any()) is reached


@pytest.mark.parametrize("distill", [PrefixKL(), LayerKL()])
def test_one_layer_has_nothing_to_learn_from(distill):
    texts = random_embeddings(3, layers=2, texts=6, width=8)
    value = distill(texts, chosen((2, 4), (2, 8)))
    assert value == 0
    assert value.dtype == torch.float64


def test_each_sub_model_or_layer_counts_once():
    texts = random_embeddings(4, layers=2, texts=6, width=8)
    once, twice = chosen((1, 4), (2, 8)), chosen((1, 4), (1, 4), (2, 8))
    assert PrefixKL()(texts, once) == PrefixKL()(texts, twice)
    assert LayerKL()(texts, once) == LayerKL()(texts, chosen((1, 4), (1, 2), (2, 8), (2, 4)))


@pytest.mark.parametrize("distill", [PrefixKL(), LayerKL()])
def test_order_of_texts_is_irrelevant(distill):
    texts = random_embeddings(5, layers=3, texts=7, width=8)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    plan = chosen((1, 4), (2, 4), (3, 8))
    torch.testing.assert_close(distill(texts.rows(order), plan), distill(texts, plan), rtol=1e-12, atol=0)
