import pytest
import torch
import torch.nn.functional as F

from embedtrain.objective.scored import CoSENT
from embedtrain.types import InputError, Pairing


def slow_loss(query, docs, pairing, scale):
    """The double sum of the docstring."""
    cosine = F.cosine_similarity(query, docs[pairing.target])
    total = torch.ones((), dtype=query.dtype)
    for i, low in enumerate(pairing.scores):
        for j, high in enumerate(pairing.scores):
            if low < high:
                total = total + torch.exp(scale * (cosine[i] - cosine[j]))
    return total.log()


def batch(seed, pairs=8, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(pairs, 5, generator=generator, dtype=dtype, requires_grad=True)
    docs = torch.randn(pairs + 3, 5, generator=generator, dtype=dtype, requires_grad=True)
    target = torch.randperm(pairs + 3, generator=generator)[:pairs]
    scores = torch.randint(4, (pairs,), generator=generator) / 4  # ties on purpose
    return query, docs, Pairing(target, torch.ones(pairs, pairs + 3, dtype=torch.bool), scores)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_loss_equals_its_formula(seed, scale):
    query, docs, pairing = batch(seed)
    ours, slow = CoSENT(scale)(query, docs, pairing), slow_loss(query, docs, pairing, scale)
    torch.testing.assert_close(ours, slow, rtol=1e-10, atol=1e-12)
    gradients = torch.autograd.grad(ours, [query, docs]), torch.autograd.grad(slow, [query, docs])
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_gradients_equal_finite_differences():
    query, docs, pairing = batch(0)
    assert torch.autograd.gradcheck(lambda q, d: CoSENT(3.0)(q, d, pairing), (query, docs), atol=1e-6)


def test_equal_scores_give_zero_and_no_gradient():
    query, docs, pairing = batch(1, dtype=torch.float32)
    value = CoSENT()(query, docs, pairing._replace(scores=torch.full((8,), 0.4)))
    assert value == 0
    for gradient in torch.autograd.grad(value, [query, docs]):
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_float32_holds_at_scales_where_exp_overflows():
    query, docs, pairing = batch(2)
    exact = CoSENT(1000.0)(query, docs, pairing)
    single = CoSENT(1000.0)(query.float(), docs.float(), pairing)
    assert torch.isfinite(single)
    torch.testing.assert_close(single.double(), exact, rtol=1e-5, atol=0)


def test_order_of_pairs_and_rank_preserving_scores_change_nothing():
    query, docs, pairing = batch(3)
    value = CoSENT()(query, docs, pairing)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    moved = Pairing(pairing.target[order], pairing.allowed[order], pairing.scores[order])
    torch.testing.assert_close(CoSENT()(query[order], docs, moved), value, rtol=1e-12, atol=0)
    stretched = pairing._replace(scores=5 * pairing.scores**3 - 2)
    assert CoSENT()(query, docs, stretched) == value


def test_a_well_ordered_batch_costs_less_than_its_reverse():
    query = F.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    side = F.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(1)), dim=-1)
    scores = torch.linspace(0, 1, 6)
    docs = scores[:, None] * query + (1 - scores[:, None]) * side
    rising = F.cosine_similarity(query, docs)
    everyone = torch.ones(6, 6, dtype=torch.bool)
    right = CoSENT()(query, docs, Pairing(torch.arange(6), everyone, rising))
    wrong = CoSENT()(query, docs, Pairing(torch.arange(6), everyone, -rising))
    assert right < wrong


def test_missing_scores_name_the_cure():
    query, docs, pairing = batch(0)
    with pytest.raises(InputError, match=r'CoSENT needs a "score" on every training row.*InfoNCE'):
        CoSENT()(query, docs, pairing._replace(scores=None))


@pytest.mark.parametrize("scale", [0, -1.0, float("nan")])
def test_scale_must_be_positive(scale):
    with pytest.raises(InputError, match=r"scale must be above 0 \(20 is usual\), got"):
        CoSENT(scale)
