import pytest
import torch
import torch.nn.functional as F
from fixed_pairing import fixed
from torch.utils._python_dispatch import TorchDispatchMode

from embedtrain.objective.losses.regularizers import GOR, OPL
from embedtrain.objective.schedule import Linear
from embedtrain.types import InputError

OWNER = torch.tensor([0, 2, 1, 0, 3, 0, 2])  # two hard negatives of 0, one of 2
TARGET = torch.tensor([3, 2, 1, 4])
SCORES = torch.tensor([1.0, 0.0, torch.nan, 0.4])


def batch(seed=0, width=5, **facts):
    generator = torch.Generator().manual_seed(seed)
    query, docs = (
        torch.randn(count, width, generator=generator, dtype=torch.float64, requires_grad=True)
        for count in (4, 7)
    )
    given = {"owner": OWNER, "scores": SCORES, **facts}
    return query, docs, fixed(TARGET, torch.ones(4, 7, dtype=torch.bool), **given)


def test_opl_repeats_a_positive_for_each_hard_negative():
    query, docs, pairing = batch()
    cosine = F.normalize(query, dim=-1) @ F.normalize(docs, dim=-1).T
    goals = [(0, 3, 1), (0, 0, 0), (0, 3, 1), (0, 5, 0), (2, 1, 1), (2, 6, 0)]
    slow = sum((cosine[row, c] - goal) ** 2 for row, c, goal in goals) / 6
    torch.testing.assert_close(OPL()(query, docs, pairing), slow, rtol=1e-12, atol=0)


def test_opl_of_scored_pairs_leaves_out_those_without():
    query, docs, pairing = batch()
    cosine = F.cosine_similarity(query, docs[TARGET])
    slow = ((cosine[0] - 1) ** 2 + cosine[1] ** 2 + (cosine[3] - 0.4) ** 2) / 3
    torch.testing.assert_close(OPL("scores")(query, docs, pairing), slow, rtol=1e-7, atol=0)


def test_opl_without_allowed_negatives_is_zero():
    query, docs, _ = batch()
    nothing = fixed(TARGET, F.one_hot(TARGET, 7).bool(), owner=OWNER)
    value = OPL()(query, docs, nothing)
    assert value == 0
    assert not torch.autograd.grad(value, docs)[0].any()


def slow_gor(texts, mean_weight, second_weight):
    cosine = F.normalize(texts, dim=-1) @ F.normalize(texts, dim=-1).T
    others = cosine[~torch.eye(len(texts), dtype=torch.bool)]
    second = (others.square().mean() - 1 / texts.shape[1]).clamp(min=0)
    return mean_weight * others.mean() ** 2 + second_weight * second


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.3, 0.0), (0.0, 2.0)])
@pytest.mark.parametrize("width", [2, 5, 40])
def test_gor_equals_its_formula(weights, width):
    query, docs, pairing = batch(1, width)
    slow = (slow_gor(query, *weights) + slow_gor(docs, *weights)) / 2
    torch.testing.assert_close(GOR(*weights)(query, docs, pairing), slow, rtol=1e-10, atol=1e-15)


def test_gor_of_spread_out_texts_is_zero_and_of_equal_texts_two():
    axes = torch.eye(4, dtype=torch.float64)
    _, _, pairing = batch()
    opposite = torch.cat([axes, -axes])
    assert GOR()(opposite, opposite, pairing) < 0.03  # the mean cosine is -1/7
    alike = axes[:1].repeat(6, 1)
    torch.testing.assert_close(GOR()(alike, alike, pairing), axes.new_tensor(1 + 1 - 1 / 4))
    single = axes[:1].clone().requires_grad_()
    assert GOR()(single, single, pairing) == 0


def test_gor_never_holds_a_table_of_texts():
    largest = 0

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                largest = max(largest, result.numel())
            return result

    texts = torch.randn(600, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    _, _, pairing = batch()
    with Sizes():
        GOR()(texts, texts, pairing).backward()
    assert largest == 600 * 8


def test_gor_in_float32_is_as_exact_as_its_table():
    texts = torch.randn(2000, 64, generator=torch.Generator().manual_seed(0)) + 0.3
    _, _, pairing = batch()
    exact = slow_gor(texts.double(), 1.0, 1.0)
    torch.testing.assert_close(GOR()(texts, texts, pairing).double(), exact, rtol=1e-4, atol=0)


LOSSES = {"opl": OPL(), "opl-scores": OPL("scores"), "gor": GOR()}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_equal_finite_differences(name):
    query, docs, pairing = batch(2)
    assert torch.autograd.gradcheck(lambda q, d: LOSSES[name](q, d, pairing), (query, docs), atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_norms_and_the_order_of_documents_are_irrelevant(name):
    query, docs, pairing = batch(3)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    moved = fixed(
        order.argsort()[TARGET], torch.ones(4, 7, dtype=torch.bool), owner=OWNER[order], scores=SCORES
    )
    value = LOSSES[name](query, docs, pairing)
    torch.testing.assert_close(LOSSES[name](4 * query, docs[order] / 9, moved), value, rtol=1e-12, atol=0)


def test_gor_weights_may_follow_a_schedule():
    query, docs, pairing = batch(4)
    rising = GOR(Linear(0.0, 1.0, steps=4), 0.0)
    assert rising(query, docs, pairing._replace(step=2)) == GOR(0.5, 0.0)(query, docs, pairing)


def test_what_is_missing_names_the_cure():
    query, docs, pairing = batch(scores=None, owner=None)
    with pytest.raises(InputError, match=r'OPL needs hard negatives .* add "negatives"'):
        OPL()(query, docs, pairing)
    with pytest.raises(InputError, match=r'OPL needs a "score" on the training rows'):
        OPL("scores")(query, docs, pairing)


def test_needs_are_announced():
    assert OPL().needs == {"negatives"}
    assert OPL("scores").needs == {"scores"}
    assert GOR().needs == frozenset()
