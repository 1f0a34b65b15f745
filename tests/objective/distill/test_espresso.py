import pytest
import torch
import torch.nn.functional as F
from random_batches import random_embeddings

from embedtrain.objective import plan
from embedtrain.objective.distill.espresso import Espresso, compressed
from embedtrain.types import InputError, SubModel, Weighted


def chosen(*items):
    return tuple(Weighted(SubModel(layer, dim), weight) for layer, dim, weight in items)


def slow_compression(full, count):
    """The formula, column by column, with the sign rule."""
    affinity = torch.softmax(full.T @ full / full.shape[1] ** 0.5, dim=1)
    left, values, _ = torch.linalg.svd(affinity)
    columns = []
    for place in range(count):
        column = left[:, place]
        if column[column.abs().argmax()] < 0:
            column = -column
        columns.append(full @ column * values[place])
    return torch.stack(columns, 1)


def slow_loss(texts, layer, count, temperature, mse_weight, kl_weight):
    full = texts.values[layer - 1]
    target = slow_compression(full.detach(), count)
    prefix = full[:, :count]
    p, q = torch.softmax(target / temperature, -1), torch.softmax(prefix / temperature, -1)
    divergence = (p * (p / q).log()).sum(-1).mean()
    return mse_weight * ((prefix - target) ** 2).mean() + kl_weight * temperature * divergence


@pytest.mark.parametrize("settings", [(1.0, 1.0, 1.0), (0.5, 2.0, 0.0), (2.0, 0.0, 3.0)])
def test_loss_equals_its_formula_with_the_plans_weights(settings):
    texts = random_embeddings(0, layers=3, texts=9, width=8)
    choice = chosen((1, 3, 0.25), (2, 3, 0.5), (3, 3, 1.0), (3, 8, 1.0))
    slow = sum(weight * slow_loss(texts, layer, 3, *settings) for (layer, dim), weight in choice if dim == 3)
    value = Espresso(3, *settings)(texts, choice)
    torch.testing.assert_close(value, slow, rtol=1e-10, atol=0)
    mine, theirs = (torch.autograd.grad(each, texts.values)[0] for each in (value, slow))
    torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)
    assert not mine[:, :, 3:].any()  # targets are constants: only the prefix learns


def test_plan_and_distillation_of_one_size_belong_together():
    texts = random_embeddings(1, layers=3, texts=6, width=8)
    chooser = plan.Espresso(4, num_layers=3, width=8)
    parts = [Espresso(4)(texts, chosen((layer, 4, 1.0))) for layer in (1, 2, 3)]
    weights = [item.weight for item in chooser(0)[:3]]
    expected = sum(weight * part for weight, part in zip(weights, parts, strict=True))
    torch.testing.assert_close(Espresso(4)(texts, chooser(0)), expected, rtol=1e-12, atol=0)


def test_order_of_texts_is_irrelevant():
    texts = random_embeddings(2, layers=1, texts=7, width=8)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    one, other = (Espresso(3)(each, chosen((1, 3, 1.0))) for each in (texts, texts.rows(order)))
    torch.testing.assert_close(one, other, rtol=1e-10, atol=0)


def test_signs_do_not_depend_on_what_the_decomposition_returns(monkeypatch):
    full = torch.randn(9, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    usual = compressed(full, 4)
    decompose = torch.linalg.svd

    def flipped(matrix, **settings):
        left, values, right = decompose(matrix, **settings)
        signs = torch.tensor([1.0, -1, -1, 1, -1, 1], dtype=left.dtype)
        return left * signs, values, right * signs[:, None]

    monkeypatch.setattr(torch.linalg, "svd", flipped)
    torch.testing.assert_close(compressed(full, 4), usual, rtol=1e-12, atol=0)


def decaying(seed, texts, width):
    """Vectors with few strong directions, as those of a model have them."""
    generator = torch.Generator().manual_seed(seed)
    turn, _ = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64))
    spread = 2 * torch.exp(-torch.arange(width, dtype=torch.float64) / 2)
    return (torch.randn(texts, width, generator=generator, dtype=torch.float64) * spread) @ turn


def test_wide_vectors_by_power_iteration_come_close_and_repeat():
    full = decaying(0, 64, 96)
    exact, near = compressed(full, 4), compressed(full, 4, exact=False)
    assert not torch.equal(near, exact)
    assert (near - exact).norm() < 1e-6 * exact.norm()
    state = torch.random.get_rng_state()
    assert torch.equal(compressed(full, 4, exact=False), near)
    assert torch.equal(torch.random.get_rng_state(), state)  # draws nothing from the program's generator


def test_exact_width_decides_the_method():
    texts = random_embeddings(4, layers=1, texts=12, width=40)
    exact, near = (Espresso(4, exact_width=width)(texts, chosen((1, 4, 1.0))) for width in (40, 39))
    assert exact != near
    torch.testing.assert_close(near, exact, rtol=0.5, atol=0)


@pytest.mark.parametrize("exact", [True, False])
def test_all_components_reproduce_the_affinity(exact):
    full = decaying(1, 20, 6)
    affinity = torch.softmax(full.T @ full / 6**0.5, dim=1)
    eye = torch.eye(6, dtype=torch.float64)
    scaled = compressed_basis(full, eye, exact)
    torch.testing.assert_close(scaled @ scaled.T, affinity @ affinity.T, rtol=1e-9, atol=1e-12)


def compressed_basis(full, eye, exact):
    """U S, read off the projection by solving for it."""
    return torch.linalg.lstsq(full, compressed(full, len(eye), exact=exact)).solution


def test_strength_follows_the_norm():
    texts = random_embeddings(5, layers=1, texts=8, width=8)
    longer = texts._replace(values=4 * texts.values)
    short, long = (Espresso(3, kl_weight=0)(each, chosen((1, 3, 1.0))) for each in (texts, longer))
    assert long > 4 * short


def test_gradients_equal_finite_differences_of_the_prefix():
    texts = random_embeddings(6, layers=1, texts=5, width=6)
    fixed_target = compressed(texts.values[0], 2)

    def loss(prefix):
        p = F.softmax(fixed_target, -1)
        return F.mse_loss(prefix, fixed_target) + (p * (p.log() - F.log_softmax(prefix, -1))).sum(-1).mean()

    prefix = texts.values[0, :, :2].detach().requires_grad_()
    assert torch.autograd.gradcheck(loss, (prefix,), atol=1e-6)
    ours = torch.autograd.grad(Espresso(2)(texts, chosen((1, 2, 1.0))), texts.values)[0][0, :, :2]
    torch.testing.assert_close(ours, torch.autograd.grad(loss(prefix), prefix)[0], rtol=1e-9, atol=1e-13)


def test_a_plan_without_that_size_names_the_cure():
    texts = random_embeddings(7, layers=2, texts=5, width=8)
    message = r"compress_dim=4, and the plan trains dims \[3, 8\]: choose plan=espresso"
    with pytest.raises(InputError, match=message):
        Espresso(4)(texts, chosen((1, 3, 1.0), (2, 8, 1.0)))
    with pytest.raises(InputError, match=r"below the width"):
        Espresso(8)(texts, chosen((2, 8, 1.0)))
