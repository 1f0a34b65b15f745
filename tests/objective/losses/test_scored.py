import pytest
import torch
import torch.nn.functional as F
from fixed_pairing import fixed

from embedtrain.objective.losses.scored import CoSENT
from embedtrain.objective.schedule import Linear
from embedtrain.types import InputError


def slow_loss(query, docs, pairing, scale):
    """The double sum of the docstring."""
    cosine = F.cosine_similarity(query, docs[pairing.target])
    total = torch.ones((), dtype=query.dtype)
    for i, low in enumerate(pairing.scores):
        for j, high in enumerate(pairing.scores):
            if low < high and pairing.task[i] == pairing.task[j]:  # never where one is NaN
                total = total + torch.exp(scale * (cosine[i] - cosine[j]))
    return total.log()


def batch(seed, pairs=8, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(pairs, 5, generator=generator, dtype=dtype, requires_grad=True)
    docs = torch.randn(pairs + 3, 5, generator=generator, dtype=dtype, requires_grad=True)
    target = torch.randperm(pairs + 3, generator=generator)[:pairs]
    scores = torch.randint(4, (pairs,), generator=generator) / 4  # ties on purpose
    return query, docs, all_ranks(target, pairs + 3, scores)


def all_ranks(target, documents, scores, **facts):
    return fixed(target, torch.ones(len(target), documents, dtype=torch.bool), scores=scores, **facts)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("temperature", [1.0, 0.05])
def test_loss_equals_its_formula(seed, temperature):
    query, docs, pairing = batch(seed)
    ours, slow = CoSENT(temperature)(query, docs, pairing), slow_loss(query, docs, pairing, 1 / temperature)
    torch.testing.assert_close(ours, slow, rtol=1e-10, atol=1e-12)
    gradients = torch.autograd.grad(ours, [query, docs]), torch.autograd.grad(slow, [query, docs])
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_gradients_equal_finite_differences():
    query, docs, pairing = batch(0)
    assert torch.autograd.gradcheck(lambda q, d: CoSENT(1 / 3.0)(q, d, pairing), (query, docs), atol=1e-6)


def test_equal_scores_give_zero_and_no_gradient():
    query, docs, pairing = batch(1, dtype=torch.float32)
    value = CoSENT()(query, docs, pairing._replace(scores=torch.full((8,), 0.4)))
    assert value == 0
    for gradient in torch.autograd.grad(value, [query, docs]):
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_float32_holds_at_scales_where_exp_overflows():
    query, docs, pairing = batch(2)
    exact = CoSENT(0.001)(query, docs, pairing)
    single = CoSENT(0.001)(query.float(), docs.float(), pairing)
    assert torch.isfinite(single)
    torch.testing.assert_close(single.double(), exact, rtol=1e-5, atol=0)


def test_order_of_pairs_and_rank_preserving_scores_change_nothing():
    query, docs, pairing = batch(3)
    value = CoSENT()(query, docs, pairing)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    moved = all_ranks(pairing.target[order], 11, pairing.scores[order])
    torch.testing.assert_close(CoSENT()(query[order], docs, moved), value, rtol=1e-12, atol=0)
    stretched = pairing._replace(scores=5 * pairing.scores**3 - 2)
    assert CoSENT()(query, docs, stretched) == value


def test_a_well_ordered_batch_costs_less_than_its_reverse():
    query = F.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    side = F.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(1)), dim=-1)
    scores = torch.linspace(0, 1, 6)
    docs = scores[:, None] * query + (1 - scores[:, None]) * side
    rising = F.cosine_similarity(query, docs)
    right = CoSENT()(query, docs, all_ranks(torch.arange(6), 6, rising))
    wrong = CoSENT()(query, docs, all_ranks(torch.arange(6), 6, -rising))
    assert right < wrong


def test_rows_without_a_score_are_left_out():
    query, docs, pairing = batch(4)
    scores = pairing.scores.clone()
    scores[[1, 5]] = torch.nan
    some = torch.tensor([0, 2, 3, 4, 6, 7])
    value = CoSENT()(query, docs, pairing._replace(scores=scores))
    kept = all_ranks(pairing.target[some], 11, scores[some])
    torch.testing.assert_close(value, CoSENT()(query[some], docs, kept), rtol=1e-12, atol=0)
    assert not torch.autograd.grad(value, query)[0][[1, 5]].any()


def test_pairs_of_different_tasks_are_not_compared():
    query, docs, pairing = batch(5)
    task = torch.tensor([0, 1, 0, 1, 1, 0, 2, 0])
    mixed = pairing._replace(task=task)
    value = CoSENT()(query, docs, mixed)
    torch.testing.assert_close(value, slow_loss(query, docs, mixed, 20.0), rtol=1e-10, atol=0)
    scale_of_their_own = pairing.scores + 100.0 * task
    assert CoSENT()(query, docs, mixed._replace(scores=scale_of_their_own)) == value
    assert value < CoSENT()(query, docs, pairing)


def test_hard_negatives_as_labels_rank_every_positive_above_every_one():
    query, docs, _ = batch(6, pairs=4)  # 7 documents: 4 positives, 3 negatives
    pairing = all_ranks(torch.arange(4), 7, None, owner=torch.tensor([0, 1, 2, 3, 0, 0, 2]))
    cosine = F.normalize(query, dim=-1) @ F.normalize(docs, dim=-1).T
    high, low = cosine.diagonal(), torch.stack([cosine[0, 4], cosine[0, 5], cosine[2, 6]])
    slow = (1 + torch.exp(20 * (low[:, None] - high[None, :])).sum()).log()
    value = CoSENT(labels="negatives")(query, docs, pairing)
    torch.testing.assert_close(value, slow, rtol=1e-12, atol=0)


def test_temperature_may_follow_a_schedule():
    query, docs, pairing = batch(7)
    falling = CoSENT(Linear(0.1, 0.05, steps=10))
    for step, temperature in ((0, 0.1), (5, 0.075), (99, 0.05)):
        value = falling(query, docs, pairing._replace(step=step))
        torch.testing.assert_close(value, CoSENT(temperature)(query, docs, pairing))


def test_norms_play_no_part():
    query, docs, pairing = batch(8)
    value = CoSENT()(query, docs, pairing)
    torch.testing.assert_close(CoSENT()(7 * query, docs / 3, pairing), value, rtol=1e-12, atol=0)


def test_missing_scores_name_the_cure():
    query, docs, pairing = batch(0)
    message = r'CoSENT needs a "score" on the training rows and none .* add the scores, or .* InfoNCE'
    for none in (None, torch.full((8,), torch.nan)):
        with pytest.raises(InputError, match=message):
            CoSENT()(query, docs, pairing._replace(scores=none))


def test_needs_are_announced():
    assert CoSENT().needs == {"scores"}
    assert CoSENT(labels="negatives").needs == {"negatives"}
