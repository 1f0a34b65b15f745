import pytest
import torch
import torch.nn.functional as F
from fixed_pairing import fixed
from random_batches import random_embeddings

from embedtrain.objective.distill.embedding import EmbeddingDistill
from embedtrain.objective.matryoshka import Objective
from embedtrain.types import Embeddings, Guide, InputError, SubModel, Weighted

CHOSEN = tuple(Weighted(SubModel(*pair), weight) for *pair, weight in ((1, 2, 0.5), (2, 4, 1.0), (2, 8, 2.0)))


def unit(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def distill(distance, projection=True, normalize=True, guide_width=5, **settings):
    made = EmbeddingDistill(
        distance, projection=projection, normalize=normalize, width=8, guide_width=guide_width, **settings
    )
    return made.double()


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("projection", [True, False])
@pytest.mark.parametrize("distance", ["cosine", "mse"])
def test_loss_equals_its_formula(distance, projection, normalize):
    texts = random_embeddings(0, layers=2, texts=6, width=8)
    guide = unit(1, 6, 5 if projection else 8)
    loss = distill(distance, projection, normalize, guide.shape[1], weight=3.0)
    slow = 0.0
    for (layer, dim), weight in CHOSEN:
        total = 0.0
        for row in range(6):
            student = texts.values[layer - 1, row, :dim]
            if normalize:
                student = student / student.norm()
            target = guide[row]
            if projection:
                student = loss.projection[:, :dim] @ student
            else:
                target = target[:dim] / target[:dim].norm()
            if distance == "mse":
                total = total + ((student - target) ** 2).mean()
            else:
                total = total + 1 - F.cosine_similarity(student, target, dim=0)
        slow = slow + 3.0 * weight * total / 6
    value = loss(texts, CHOSEN, guide)
    torch.testing.assert_close(value, slow, rtol=1e-12, atol=0)
    leaves = [texts.values, *loss.parameters()]
    for mine, theirs in zip(
        torch.autograd.grad(value, leaves), torch.autograd.grad(slow, leaves), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("distance", ["cosine", "mse"])
def test_a_student_equal_to_its_guide_has_nothing_to_learn_at_any_dim(distance):
    texts = random_embeddings(2, layers=2, texts=6, width=8)
    guide = F.normalize(texts.values[1].detach(), dim=-1)
    equal = texts._replace(values=texts.values[[1, 1]])  # un-normalised, longer than the guide
    value = distill(distance, projection=False, guide_width=8)(equal, CHOSEN, guide)
    assert value.abs() < 1e-12
    assert torch.autograd.grad(value, texts.values)[0].abs().max() < 1e-10


def test_a_wider_guide_teaches_its_prefixes_and_cells_weigh():
    texts = random_embeddings(15, layers=2, texts=6, width=8)
    guide = torch.randn(6, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    guide = F.normalize(guide, dim=-1)
    made = {"projection": False, "guide_width": 12}
    found = distill("cosine", **made)(texts, CHOSEN, guide)
    expected = sum(
        weight * (1 - F.cosine_similarity(texts.at(sub), guide[:, : sub.dim])).mean()
        for sub, weight in CHOSEN
    )
    torch.testing.assert_close(found, expected)
    for sub, _ in CHOSEN:
        others = {str(other): 0.0 for other, _ in CHOSEN if other != sub}
        alone = distill("cosine", cells=others | {str(sub): 3.0}, **made)(texts, CHOSEN, guide)
        one = distill("cosine", **made)(texts, tuple(item for item in CHOSEN if item.sub == sub), guide)
        torch.testing.assert_close(alone, 3 * one)


def test_without_normalising_mse_trains_the_norm():
    texts = random_embeddings(3, layers=2, texts=6, width=8)
    guide = unit(4, 6, 8)
    full = CHOSEN[-1:]
    doubled = texts._replace(values=2 * texts.values)
    for normalize, same in ((True, True), (False, False)):
        loss = distill("mse", False, normalize, 8)
        value, other = (loss(each, full, guide) for each in (texts, doubled))
        assert bool(torch.isclose(value, other)) is same


def test_each_prefix_uses_the_first_columns_of_the_projection():
    texts = random_embeddings(5, layers=2, texts=6, width=8)
    loss = distill("mse")
    gradient = torch.autograd.grad(loss(texts, CHOSEN[1:2], unit(6, 6, 5)), loss.projection)[0]
    assert gradient[:, :4].any(0).all()
    assert not gradient[:, 4:].any()


def test_the_projection_starts_the_same_for_one_seed_whatever_was_drawn_before():
    torch.manual_seed(1)
    first = distill("cosine").projection
    torch.manual_seed(2)
    assert torch.equal(first, distill("cosine").projection)
    assert not torch.equal(first, distill("cosine", seed=1).projection)
    torch.testing.assert_close(first @ first.T, torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-6)


def test_gradients_equal_finite_differences():
    texts = random_embeddings(7, layers=2, texts=4, width=8)
    guide = unit(8, 4, 5)
    for distance in ("cosine", "mse"):
        loss = distill(distance)
        assert torch.autograd.gradcheck(
            lambda values, loss=loss: loss(texts._replace(values=values), CHOSEN, guide),
            (texts.values,),
            atol=1e-6,
        )


def test_order_of_texts_is_irrelevant():
    texts, guide = random_embeddings(9, layers=2, texts=6, width=8), unit(10, 6, 5)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    loss = distill("cosine")
    moved = loss(texts.rows(order), CHOSEN, guide[order])
    torch.testing.assert_close(moved, loss(texts, CHOSEN, guide), rtol=1e-12, atol=0)


def test_no_gradient_reaches_the_guide():
    texts, guide = random_embeddings(11, layers=2, texts=6, width=8), unit(12, 6, 5).requires_grad_()
    distill("mse")(texts, CHOSEN, guide).backward()
    assert guide.grad is None


def test_inside_an_objective_it_sees_queries_then_documents():
    texts, guide = random_embeddings(13, layers=2, texts=6, width=8), unit(14, 6, 5)
    two = torch.arange(2)
    owner = torch.tensor([0, 1, 0, 1])
    pairing = fixed(two, torch.ones(2, 4, dtype=torch.bool), guide=Guide(guide[:2], guide[2:]), owner=owner)
    loss = distill("cosine")
    objective = Objective(lambda query, docs, pairing: query.sum() * 0, loss)
    query, docs = texts.rows(two), texts.rows(torch.arange(2, 6))
    value = objective(query, docs, pairing, CHOSEN)
    torch.testing.assert_close(value.total, loss(texts, CHOSEN, guide), rtol=1e-12, atol=0)
    assert "projection" in dict(loss.named_parameters())
    assert any(name.endswith("distill.projection") for name, _ in objective.named_parameters())


def test_what_is_missing_or_wrong_names_the_cure():
    texts = random_embeddings(15, layers=2, texts=6, width=8)
    with pytest.raises(InputError, match=r"EmbeddingDistill needs a guide model: name one"):
        distill("mse")(texts, CHOSEN)
    with pytest.raises(InputError, match=r"EmbeddingDistill needs a guide model: name one"):
        distill("mse", guide_width=None)
    with pytest.raises(InputError, match=r"the guide has only 5 dims for the model's 8: set projection=true"):
        distill("mse", projection=False)
    with pytest.raises(InputError, match=r"distance must be one of \['cosine', 'mse'\], got 'l2'"):
        distill("l2")
    with pytest.raises(InputError, match=r"weight must be 0 or more, got -1"):
        distill("mse", weight=-1)
    for cells, said in (({"3x8": 1}, "'3x8' names no sub-model"), ({"L1_D2": -1}, "cells.L1_D2 must be 0")):
        with pytest.raises(InputError, match=said):
            distill("mse", cells=cells)
    assert distill("mse").needs == {"guide"}


def test_the_guide_takes_the_precision_of_the_embeddings():
    values = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
    loss = EmbeddingDistill(width=8, guide_width=5)
    value = loss(Embeddings(values, (1, 2)), CHOSEN, unit(16, 6, 5))
    assert value.dtype == torch.float32
