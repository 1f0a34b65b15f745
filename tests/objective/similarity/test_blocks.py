"""Row losses in chunks, prefixes from one pass, gradients made on the way: against the obvious version."""

import pytest
import torch
import torch.nn.functional as F
from fixed_pairing import columns_links
from pairs_of import pair
from torch import nn

from embedtrain.content_ids import content_id
from embedtrain.objective.losses.contrastive import InfoNCE
from embedtrain.objective.losses.terms import Sum, Term, subset
from embedtrain.objective.losses.weighting import Progressive
from embedtrain.objective.matryoshka import Objective
from embedtrain.objective.schedule import Linear
from embedtrain.objective.similarity import blocks, nested
from embedtrain.objective.similarity.row_terms import RowTerm, Step
from embedtrain.rules import MarginPos
from embedtrain.types import Allowed, Blocks, Embeddings, InputError, Pairing, SubModel, Weighted

NAMES = ("query_docs", "query_queries", "doc_queries", "doc_docs")
SUBS = {SubModel(2, 3): 0.5, SubModel(2, 8): 1.0, SubModel(4, 5): 2.0, SubModel(4, 8): 1.0}
B, C, D = 7, 11, 8


class Everyone:
    """All candidates, without the diagonals; under `margin`, only those the student ranks close."""

    def __init__(self, target, docs, margin=None):
        self.target, self.docs, self.margin = target, docs, margin
        self.needs_student = margin is not None
        self.asked = []

    def allowed(self, rows, names, student):
        self.asked.append(len(rows))
        shape = {"docs": self.docs, "queries": len(self.target)}
        found = {
            name: torch.ones(len(rows), shape[name.partition("_")[2]], dtype=torch.bool) for name in names
        }
        at = torch.arange(len(rows))
        if "query_queries" in found:
            found["query_queries"][at, rows] = False
        if "doc_docs" in found:
            found["doc_docs"][at, self.target[rows]] = False
        removed = {}
        if self.margin is not None:
            positive = student.query_docs.gather(1, self.target[rows][:, None])
            for name in names:
                far = getattr(student, name) <= positive + self.margin
                if name == "query_docs":
                    removed["margin"] = (found[name] & ~far).sum(1)
                found[name] &= far
            found["query_docs"][at, self.target[rows]] = True
        return Allowed(Blocks(**found), torch.full((len(rows),), self.docs - 1), removed)


class Softmax(nn.Module):
    """A row loss over whatever blocks, with a parameter of its own."""

    def __init__(self, similarity="cosine", names=NAMES):
        super().__init__()
        self.similarity, self.blocks = similarity, names
        self.log_inverse = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

    def rows(self, scores, allowed, facts):
        parts = [
            torch.where(getattr(allowed, name), getattr(scores, name) * self.log_inverse.exp(), -torch.inf)
            for name in self.blocks
            if getattr(scores, name) is not None
        ]
        logits = torch.cat(parts, 1)
        positive = scores.query_docs.gather(1, facts.target[:, None])[:, 0] * self.log_inverse.exp()
        return logits.logsumexp(1) - positive


class Follow(nn.Module):
    """A distillation of rows."""

    similarity = "dot"

    def rows(self, student, teacher, allowed, facts):
        return 0.3 * ((student - teacher).square() * allowed).sum(1)


@pytest.fixture
def batch():
    draw = torch.Generator().manual_seed(5)
    query = torch.randn(2, B, D, generator=draw, dtype=torch.float64)
    docs = torch.randn(2, C, D, generator=draw, dtype=torch.float64)
    target = torch.tensor([3, 0, 5, 1, 9, 7, 2])
    owner = torch.full((C,), -1)
    owner[target] = torch.arange(B)
    task = torch.tensor([content_id(name) for name in "aabbaab"])
    return query, docs, target, owner, task


def pairing_of(batch, margin=None, step=0):
    _, _, target, owner, task = batch
    return Pairing(target, owner, task, step, Everyone(target, C, margin))


def obvious(query, docs, pairing, weights, terms, distill=None):
    """Whole matrices, normalised prefixes, autograd."""
    layers = {2: 0, 4: 1}
    rows = torch.arange(B)

    def all_scores(sub, similarity):
        q, d = query[layers[sub.layer], :, : sub.dim], docs[layers[sub.layer], :, : sub.dim]
        if similarity == "cosine":
            q, d = F.normalize(q, dim=1), F.normalize(d, dim=1)
        p = d[pairing.target]
        return Blocks(q @ d.T, q @ q.T, p @ q.T, p @ d.T)

    largest = max(weights)
    student = Blocks(*(block.detach() for block in all_scores(largest, "cosine")))
    allowed = pairing.candidates.allowed(rows, NAMES, student).blocks
    facts = type("Facts", (), {"rows": rows, "target": pairing.target, "step": pairing.step})
    total = 0.0
    for sub, weight in weights.items():
        for loss, factor, per_row in terms:
            found = loss.rows(all_scores(sub, loss.similarity), allowed, facts)
            total = total + weight * factor * (found * per_row).sum()
        if distill is not None and sub != largest:
            teacher = all_scores(largest, "dot").query_docs.detach()
            student_scores = all_scores(sub, "dot").query_docs
            total = total + distill.rows(student_scores, teacher, allowed.query_docs, facts).mean()
    return total


@pytest.mark.parametrize("budget", [1, 20 * C, 10**6])
@pytest.mark.parametrize("margin", [None, 0.1])
def test_every_block_kind_and_sub_model_equals_whole_matrices(batch, margin, budget, monkeypatch):
    monkeypatch.setattr("embedtrain.objective.similarity.row_terms.FEWEST_ROWS", 3)
    query, docs, *_ = batch
    losses = [Softmax(), Softmax("dot", ("query_docs",)), Softmax("cosine", ("query_docs", "doc_docs"))]
    factors = [torch.full((B,), 1 / B).double(), torch.arange(B).double(), torch.rand(B).double()]
    terms = [RowTerm(loss, 0.5 + n, row) for n, (loss, row) in enumerate(zip(losses, factors, strict=True))]
    parameters = [loss.log_inverse for loss in losses]
    pairing = pairing_of(batch, margin)

    def gradients(value):
        return torch.autograd.grad(3.0 * value, [query, docs, *parameters])

    query.requires_grad_(), docs.requires_grad_()
    slow = obvious(query, docs, pairing, SUBS, terms, Follow())
    expected = gradients(slow)
    step = Step(pairing, SUBS, terms, Follow(), budget)
    pairing.candidates.asked.clear()
    fast = blocks.evaluate(Embeddings(query, (2, 4)), Embeddings(docs, (2, 4)), step)
    assert pairing.candidates.asked == ([3, 3, 1] if budget < C * 20 else [B])
    torch.testing.assert_close(fast.total, slow, rtol=1e-12, atol=1e-12)
    for found, wanted in zip(gradients(fast.total), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-11)
    assert fast.report.considered.tolist() == [C - 1] * B
    assert (fast.report.removed["margin"].sum() > 0) if margin is not None else fast.report.removed == {}


def test_report_says_which_positives_rank_first(batch):
    query, docs, target, *_ = batch
    docs = docs.clone()
    docs[:, target[2]] = query[:, 2] * 4
    docs[:, target[4]] = -query[:, 4]
    step = Step(
        pairing_of(batch), {SubModel(4, 8): 1.0}, [RowTerm(Softmax(), 1.0, torch.ones(B) / B)], None, 100
    )
    report = blocks.evaluate(Embeddings(query, (2, 4)), Embeddings(docs, (2, 4)), step).report
    cosine = F.cosine_similarity(query[1][:, None], docs[1][None], dim=2)
    assert torch.equal(report.rank_first, cosine.argmax(1) == target)
    assert report.rank_first[2]
    assert not report.rank_first[4]


def test_nothing_is_differentiated_when_nobody_asks(batch, monkeypatch):
    query, docs, *_ = batch
    monkeypatch.setattr(nested, "backward", lambda *_: pytest.fail("made a gradient"))
    loss = Softmax().requires_grad_(False)
    assert torch.isfinite(blocks.contrast(loss, query[0], docs[0], pairing_of(batch)))


def test_zero_vectors_have_finite_gradients(batch):
    query, docs, *_ = batch
    query = query[0].clone().zero_().requires_grad_()
    blocks.contrast(Softmax(), query, docs[0], pairing_of(batch)).backward()
    assert torch.isfinite(query.grad).all()


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_nested_prefixes_pass_gradcheck(similarity):
    draw = torch.Generator().manual_seed(1)
    x, y = (torch.randn(n, 6, generator=draw, dtype=torch.float64) for n in (3, 4))
    dims = [1, 2, 4, 6]
    upstream = [torch.randn(3, 4, generator=draw, dtype=torch.float64) for _ in dims]
    left, right = nested.side(x, dims, similarity), nested.side(y, dims, similarity)
    scores = list(nested.forward(left, right, dims))
    to_left, to_right = nested.empty_gradient(left), nested.empty_gradient(right)
    factors = [torch.rand(3, generator=draw, dtype=torch.float64) for _ in dims]
    slopes = [nested.Slope(slope, factor) for slope, factor in zip(upstream, factors, strict=True)]
    slopes[1] = None
    nested.backward(slopes, scores, left, right, dims, to_left, to_right)
    to_left.settle(left, dims), to_right.settle(right, dims)

    x.requires_grad_(), y.requires_grad_()
    total = 0.0
    for dim, score, slope in zip(dims, scores, slopes, strict=True):
        a, b = x[:, :dim], y[:, :dim]
        if similarity == "cosine":
            a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
        torch.testing.assert_close(score, (a @ b.T).detach(), rtol=1e-13, atol=1e-13)
        if slope is not None:
            total = total + ((a @ b.T) * slope.values * slope.factor[:, None]).sum()
    total.backward()
    torch.testing.assert_close(to_left.values, x.grad, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(to_right.values, y.grad, rtol=1e-12, atol=1e-12)


CHOSEN = tuple(Weighted(sub, weight) for sub, weight in SUBS.items())


class Apart(nn.Module):
    """A loss of vectors."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(1.5, dtype=torch.float64))

    def forward(self, query, docs, pairing):
        return self.factor * (query - docs[pairing.target]).square().sum(1).mean()


def test_a_sum_gives_each_dataset_its_losses_and_weights_them_by_the_step(batch):
    query, docs, target, _, task = batch
    pairing = pairing_of(batch, step=5)
    first, second = Softmax(), Apart()
    objective = Objective(Sum([Term(first, Linear(0.0, 1.0, 10), ["a"]), Term(second, 2.0, ["b", "c"])]))
    value = objective(Embeddings(query, (2, 4)), Embeddings(docs, (2, 4)), pairing, CHOSEN)
    in_a = (task == content_id("a")).double()
    expected = obvious(query, docs, pairing, SUBS, [(first, 0.5, in_a / B)])
    for sub, weight in SUBS.items():
        place = {2: 0, 4: 1}[sub.layer]
        apart = (query[place][:, : sub.dim] - docs[place][target][:, : sub.dim]).square().sum(1)
        expected = expected + weight * 2.0 * 1.5 * (apart * (1 - in_a)).sum() / B
    torch.testing.assert_close(value.total, expected, rtol=1e-12, atol=1e-12)


def test_a_loss_without_queries_still_has_a_gradient_of_zero(batch):
    query, docs, *_ = batch
    absent = Apart()
    objective = Objective(Sum([Term(Softmax()), Term(absent, tasks=["elsewhere"])]))
    objective(Embeddings(query, (2, 4)), Embeddings(docs, (2, 4)), pairing_of(batch), CHOSEN).total.backward()
    assert absent.factor.grad == 0


def test_mean_reduction_does_not_grow_with_the_plan(batch):
    query, docs, *_ = batch
    ends = Embeddings(query, (2, 4)), Embeddings(docs, (2, 4))
    one = (Weighted(SubModel(4, 8), 0.5),)
    twice = (*one, Weighted(SubModel(4, 8), 0.5))
    values = [
        Objective(Softmax(), reduction="mean")(*ends, pairing_of(batch), chosen).total
        for chosen in (one, twice)
    ]
    torch.testing.assert_close(values[0], values[1], rtol=1e-14, atol=0)
    weighted = Objective(Softmax(), reduction="mean")(*ends, pairing_of(batch), CHOSEN)
    summed = Objective(Softmax())(*ends, pairing_of(batch), CHOSEN)
    torch.testing.assert_close(weighted.total, summed.total / sum(SUBS.values()), rtol=1e-13, atol=0)


def test_progressive_weighting_shifts_from_easy_to_hard(batch):
    query, docs, *_ = batch
    ends = Embeddings(query, (2, 4)), Embeddings(docs, (2, 4))
    only = (Weighted(SubModel(4, 8), 1.0),)
    losses = Objective(Softmax())(*ends, pairing_of(batch), only).rows.loss
    early, late = (Progressive(start=-1.0, end=2.0, steps=100)(losses, step) for step in (0, 100))
    order = losses.argsort()
    assert (early[order].diff() <= 0).all()
    assert (late[order].diff() >= 0).all()
    torch.testing.assert_close(early.mean(), torch.tensor(1.0).double())
    flat = Objective(Softmax(), weighting=Progressive(power=0.0))(*ends, pairing_of(batch), CHOSEN).total
    torch.testing.assert_close(flat, Objective(Softmax())(*ends, pairing_of(batch), CHOSEN).total)
    hard = Objective(Softmax(), weighting=Progressive(power=2.0))(*ends, pairing_of(batch), only).total
    torch.testing.assert_close(hard, (losses * Progressive(power=2.0)(losses, 0)).mean())


def test_weighting_needs_a_loss_of_each_query():
    with pytest.raises(InputError, match="weighting needs a loss of each query"):
        Objective(Apart(), weighting=Progressive())


@pytest.mark.parametrize("temperature", [0.05, 0.001])
@pytest.mark.parametrize("margin", [None, 0.1])
def test_known_derivative_of_infonce_equals_autograd(batch, margin, temperature):
    query, docs, *_ = batch
    query.requires_grad_(), docs.requires_grad_()
    found = []
    for by_hand in (True, False):
        loss = InfoNCE(temperature)
        if not by_hand:
            loss.gain = lambda _: None
        step = Step(pairing_of(batch, margin), SUBS, [RowTerm(loss, 0.7, torch.rand(B).double())], None, 40)
        step.terms[0].rows.copy_(torch.arange(B) / B)
        value = blocks.evaluate(Embeddings(query, (2, 4)), Embeddings(docs, (2, 4)), step)
        found.append((value.total, *torch.autograd.grad(value.total, [query, docs]), value.report.loss))
    for fast, slow in zip(*found, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-11, atol=1e-12)


def test_a_rule_that_asks_the_model_holds_for_a_data_set_alone():
    """Losses of one data set ask the rules of the whole batch, with similarities of their own texts."""
    links = columns_links(4, 2)._replace(task=torch.tensor([content_id(name) for name in "abab"]))
    whole = pair(links, rules=[MarginPos(0.0, by="student")])
    ours = torch.tensor([1, 3])
    part, columns = subset(whole, ours)
    assert columns.tolist() == [1, 3, 5, 7]
    assert part.candidates.needs_student
    cosines = torch.tensor([[0.5, 0.1, 0.9, 0.2], [0.0, 0.3, 0.1, 0.4]])
    found = part.candidates.allowed(torch.arange(2), ["query_docs"], Blocks(cosines)).blocks.query_docs
    assert found.tolist() == [[True, True, False, True], [True, True, True, False]]
