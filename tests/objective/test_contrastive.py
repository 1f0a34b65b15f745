import math

import pytest
import torch
import torch.nn.functional as F

from embedtrain.objective.contrastive import InfoNCE
from embedtrain.objective.pairing import pair
from embedtrain.types import InputError, Pairing


def slow_loss(query, docs, pairing, temperature, two_sided):
    """The formulas of the docstring, one query at a time."""
    score = [[F.cosine_similarity(q, d, dim=0) / temperature for d in docs] for q in query]
    target, allowed = pairing.target.tolist(), pairing.allowed.tolist()
    ahead, back = [], []
    for i, own in enumerate(target):
        columns = [score[i][c] for c in range(len(docs)) if allowed[i][c]]
        ahead.append(torch.stack(columns).logsumexp(0) - score[i][own])
        others = [j for j in range(len(query)) if allowed[j][own] and (j == i or target[j] != own)]
        back.append(torch.stack([score[j][own] for j in others]).logsumexp(0) - score[i][own])
    forward = torch.stack(ahead).mean()
    return (forward + torch.stack(back).mean()) / 2 if two_sided else forward


@pytest.fixture
def batch(random_links):
    def build(seed, width=6):
        pairing = pair(random_links(seed))
        generator = torch.Generator().manual_seed(seed)
        rows, columns = pairing.allowed.shape
        query = torch.randn(rows, width, generator=generator, dtype=torch.float64, requires_grad=True)
        docs = torch.randn(columns, width, generator=generator, dtype=torch.float64, requires_grad=True)
        return query, docs, pairing

    return build


def value_and_gradients(loss, query, docs, pairing):
    value = loss(query, docs, pairing)
    return value, *torch.autograd.grad(value, [query, docs])


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_loss_equals_its_formula(batch, two_sided, seed):
    query, docs, pairing = batch(seed)
    loss = InfoNCE(temperature=0.2, two_sided=two_sided)
    ours = value_and_gradients(loss, query, docs, pairing)
    slow = value_and_gradients(lambda q, d, p: slow_loss(q, d, p, 0.2, two_sided), query, docs, pairing)
    for mine, theirs in zip(ours, slow, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("two_sided", [False, True])
def test_document_order_is_irrelevant(batch, two_sided):
    query, docs, pairing = batch(1)
    order = torch.randperm(len(docs), generator=torch.Generator().manual_seed(0))
    moved = Pairing(order.argsort()[pairing.target], pairing.allowed[:, order])
    loss = InfoNCE(two_sided=two_sided)
    torch.testing.assert_close(
        loss(query, docs[order], moved), loss(query, docs, pairing), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("two_sided", [False, True])
def test_a_disallowed_document_changes_nothing(batch, two_sided):
    query, docs, pairing = batch(2)
    stranger = torch.full((1, docs.shape[1]), 1e3, dtype=docs.dtype, requires_grad=True)
    wider = Pairing(pairing.target, torch.cat([pairing.allowed, pairing.allowed.new_zeros(len(query), 1)], 1))
    loss = InfoNCE(two_sided=two_sided)
    value = loss(query, torch.cat([docs, stranger]), wider)
    torch.testing.assert_close(value, loss(query, docs, pairing), rtol=1e-12, atol=0)
    assert torch.autograd.grad(value, stranger)[0].abs().max() == 0


@pytest.mark.parametrize("two_sided", [False, True])
def test_gradients_equal_finite_differences(batch, two_sided):
    query, docs, pairing = batch(3, width=4)
    loss = InfoNCE(temperature=0.3, learn_temperature=True, two_sided=two_sided).double()
    assert torch.autograd.gradcheck(
        lambda q, d, _: loss(q, d, pairing), (query, docs, loss.log_scale), atol=1e-6
    )


def test_only_directions_count(batch):
    query, docs, pairing = batch(4)
    loss = InfoNCE()
    torch.testing.assert_close(
        loss(3 * query, docs / 7, pairing), loss(query, docs, pairing), rtol=1e-12, atol=0
    )


def test_a_query_alone_with_its_target_has_loss_zero():
    query, docs = torch.randn(1, 4, requires_grad=True), torch.randn(3, 4)
    pairing = Pairing(torch.tensor([1]), torch.tensor([[False, True, False]]))
    for two_sided in (False, True):
        value = InfoNCE(two_sided=two_sided)(query, docs, pairing)
        assert value == 0
        assert torch.autograd.grad(value, query)[0].abs().max() == 0


def test_queries_that_share_a_target_are_no_negatives_of_it():
    query, docs = torch.randn(2, 4), torch.randn(1, 4)
    pairing = Pairing(torch.tensor([0, 0]), torch.ones(2, 1, dtype=torch.bool))
    assert InfoNCE(two_sided=True)(query, docs, pairing) == 0


def test_learned_temperature_begins_where_it_is_told_and_follows_the_gradient(batch):
    query, docs, pairing = batch(0)
    fixed, learned = InfoNCE(0.1), InfoNCE(0.1, learn_temperature=True)
    value = learned(query, docs, pairing)
    torch.testing.assert_close(value, fixed(query, docs, pairing), rtol=1e-6, atol=0)
    assert [name for name, _ in learned.named_parameters()] == ["log_scale"]
    assert not list(fixed.parameters())
    value.backward()
    assert learned.log_scale.grad.abs() > 0


def test_learned_scale_is_held_to_100_without_losing_its_gradient(batch):
    query, docs, pairing = batch(0)
    loss = InfoNCE(learn_temperature=True)
    with torch.no_grad():
        loss.log_scale.fill_(math.log(1e6))
    assert loss.scale().item() == pytest.approx(100, rel=1e-5)
    loss(query, docs, pairing).backward()
    assert loss.log_scale.grad.abs() > 0


@pytest.mark.parametrize("temperature", [0, -0.05, float("nan"), float("inf")])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(InputError, match=r"temperature must be above 0 \(0\.05 is usual\), got"):
        InfoNCE(temperature)


def test_learned_temperature_must_leave_room_below_the_bound():
    with pytest.raises(InputError, match=r"temperature must be at least 0\.01 to be learned, got 0\.005"):
        InfoNCE(0.005, learn_temperature=True)
    assert InfoNCE(0.01, learn_temperature=True).scale().item() == pytest.approx(100)
