import math
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from fixed_pairing import fixed

from embedtrain.objective.losses.contrastive import InfoNCE
from embedtrain.objective.schedule import Linear
from embedtrain.objective.similarity.blocks import contrast
from embedtrain.types import Blocks, Pairing, RowFacts

ALL = ("query_docs", "query_queries", "doc_queries", "doc_docs")
BOTH = ("query_docs", "doc_queries")
SETTINGS = {
    "default": {},
    "warm": {"temperature": 0.5},
    "dot": {"similarity": "dot", "temperature": 1.0},
    "symmetric": {"blocks": BOTH, "partition": "separate"},
    "all_blocks": {"blocks": ALL},
    "all_blocks_pair_twice": {"blocks": ALL, "own_pair": "twice"},
    "queries_too": {"blocks": ("query_docs", "query_queries")},
    "positives_too": {"blocks": ("query_docs", "doc_docs"), "doc_docs": "positives"},
    "hardness_in_batch": {"hardness": "in_batch", "hardness_strength": 9.0},
    "hardness_hard": {"hardness": "hard", "hardness_strength": 5.0},
    "hardness_all": {"hardness": "all", "hardness_strength": 2.0, "blocks": BOTH, "partition": "separate"},
    "hardness_joint_dot": {
        "hardness": "in_batch",
        "hardness_strength": 0.5,
        "blocks": ALL,
        "similarity": "dot",
        "temperature": 2.0,
    },
}


class Case(NamedTuple):
    query: torch.Tensor  # (B, d)
    docs: torch.Tensor  # (C, d)
    masks: Blocks
    pairing: Pairing


def pairing_of(target, masks, owner=None):
    tables = masks._asdict()
    return fixed(target, tables.pop("query_docs"), owner=owner, **tables)


@pytest.fixture
def batch():
    """Random vectors and masks; queries 0 and 1 share a target, ragged documents, one of an earlier step."""

    def build(seed, queries=5, columns=13, width=6):
        generator = torch.Generator().manual_seed(seed)

        def vectors(count):
            return torch.randn(count, width, generator=generator, dtype=torch.float64, requires_grad=True)

        def mask(*shape):
            return torch.rand(*shape, generator=generator) < 0.6

        target = torch.randperm(columns, generator=generator)[:queries]
        target[1] = target[0]
        owner = torch.randint(queries, (columns,), generator=generator)
        everyone = torch.arange(queries)
        owner[target] = everyone
        owner[min(set(range(columns)) - set(target.tolist()))] = -1
        shared = target[:, None] == target[None, :]
        masks = Blocks(
            mask(queries, columns), mask(queries, queries), mask(queries, queries), mask(queries, columns)
        )
        masks.query_docs[everyone, target] = True
        masks.doc_queries[shared] = False
        masks.doc_queries[everyone, everyone] = True
        masks.query_queries[everyone, everyone] = False
        masks.doc_docs[everyone, target] = False
        return Case(vectors(queries), vectors(columns), masks, pairing_of(target, masks, owner))

    return build


def slow_loss(case, settings):
    """The formulas of the docstring, one query and one entry at a time."""
    chosen = {
        "temperature": 0.05, "similarity": "cosine", "blocks": ("query_docs",), "partition": "joint",
        "own_pair": "once", "doc_docs": "others", "hardness": None, "hardness_strength": 0.0, **settings,
    }  # fmt: skip
    query, docs, masks, pairing = case
    target, owner = pairing.target.tolist(), pairing.owner.tolist()

    def alike(one, other):
        return one @ other if chosen["similarity"] == "dot" else F.cosine_similarity(one, other, dim=0)

    def scaled(one, other):
        return alike(one, other) / chosen["temperature"]

    def asked(i, c):
        """The logit of document c for query i."""
        cosine = alike(query[i], docs[c])
        own = owner[c] == i
        harder = {None: False, "in_batch": not own, "hard": own, "all": True}[chosen["hardness"]]
        extra = chosen["hardness_strength"] * cosine.detach() if harder and c != target[i] else 0.0
        return cosine / chosen["temperature"] + extra

    losses = []
    for i, own in enumerate(target):
        pair = scaled(query[i], docs[own])
        twice = chosen["partition"] == "separate" or chosen["own_pair"] == "twice"
        kept = {
            "query_docs": [asked(i, c) for c in range(len(docs)) if masks.query_docs[i, c]],
            "query_queries": [scaled(query[i], text) for text in query[masks.query_queries[i]]],
            "doc_queries": [
                scaled(text, docs[own])
                for j, text in enumerate(query)
                if masks.doc_queries[i, j] and (twice or j != i)
            ],
            "doc_docs": [
                scaled(docs[own], docs[c])
                for c in range(len(docs))
                if masks.doc_docs[i, c]
                and (c in target if chosen["doc_docs"] == "positives" else owner[c] != i)
            ],
        }
        pools = [kept[name] for name in chosen["blocks"]]
        if chosen["partition"] == "joint":
            pools = [[entry for pool in pools for entry in pool]]
        losses.append(torch.stack([torch.stack(pool).logsumexp(0) - pair for pool in pools]).mean())
    return torch.stack(losses).mean()


def by_rows(loss, case):
    """The mean of `rows` on whole blocks, differentiated by autograd alone."""
    query, docs, masks, pairing = case
    if loss.similarity == "cosine":
        query, docs = F.normalize(query, dim=-1), F.normalize(docs, dim=-1)
    positives = docs[pairing.target]
    scores = Blocks(query @ docs.T, query @ query.T, positives @ query.T, positives @ docs.T)
    positive = torch.zeros(len(docs), dtype=torch.bool)
    positive[pairing.target] = True
    facts = RowFacts(torch.arange(len(query)), pairing.target, pairing.step, pairing.owner, positive)
    return loss.rows(scores, masks, facts).mean()


def by_blocks(loss, case, **how):
    return contrast(loss, case.query, case.docs, case.pairing, **how)


def value_and_gradients(value, case):
    return value, *torch.autograd.grad(value, [case.query, case.docs])


def assert_equal(ours, expected, rtol=1e-10, atol=1e-12):
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=rtol, atol=atol)


@pytest.mark.parametrize("evaluate", [by_rows, by_blocks])
@pytest.mark.parametrize("name", SETTINGS)
def test_loss_equals_its_formula(batch, name, evaluate):
    for seed in range(3):
        case = batch(seed)
        ours = value_and_gradients(evaluate(InfoNCE(**SETTINGS[name]), case), case)
        assert_equal(ours, value_and_gradients(slow_loss(case, SETTINGS[name]), case))


@pytest.mark.parametrize("name", SETTINGS)
def test_chunks_of_queries_change_nothing(batch, name):
    case = batch(0, queries=40, columns=90)
    loss = InfoNCE(**SETTINGS[name])
    ours = value_and_gradients(by_blocks(loss, case, budget=1), case)
    assert_equal(ours, value_and_gradients(by_rows(loss, case), case))


@pytest.mark.parametrize("name", SETTINGS)
def test_document_order_is_irrelevant(batch, name):
    case = batch(1)
    order = torch.randperm(len(case.docs), generator=torch.Generator().manual_seed(0))
    moved = {name: getattr(case.masks, name)[:, order] for name in ("query_docs", "doc_docs")}
    masks = case.masks._replace(**moved)
    target = order.argsort()[case.pairing.target]
    moved = Case(case.query, case.docs[order], masks, pairing_of(target, masks, case.pairing.owner[order]))
    loss = InfoNCE(**SETTINGS[name])
    torch.testing.assert_close(by_rows(loss, moved), by_rows(loss, case), rtol=1e-12, atol=0)


@pytest.mark.parametrize("evaluate", [by_rows, by_blocks])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_disallowed_document_changes_nothing(batch, name, evaluate):
    case = batch(2)
    stranger = torch.full((1, 6), 1e3, dtype=torch.float64, requires_grad=True)
    nobody = torch.zeros(len(case.query), 1, dtype=torch.bool)
    masks = case.masks._replace(
        query_docs=torch.cat([case.masks.query_docs, nobody], 1),
        doc_docs=torch.cat([case.masks.doc_docs, nobody], 1),
    )
    owner = torch.cat([case.pairing.owner, torch.tensor([2])])
    wider = Case(
        case.query, torch.cat([case.docs, stranger]), masks, pairing_of(case.pairing.target, masks, owner)
    )
    loss = InfoNCE(**SETTINGS[name])
    value = evaluate(loss, wider)
    torch.testing.assert_close(value, evaluate(loss, case), rtol=1e-12, atol=0)
    assert torch.autograd.grad(value, stranger)[0].abs().max() == 0


@pytest.mark.parametrize("name", SETTINGS)
def test_a_query_alone_with_its_pair_has_loss_zero(name):
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 4, generator=generator, requires_grad=True)
    docs = torch.randn(3, 4, generator=generator)
    target = torch.tensor([1, 2])
    masks = Blocks(
        F.one_hot(target, 3).bool(),
        torch.zeros(2, 2, dtype=torch.bool),
        torch.eye(2, dtype=torch.bool),
        torch.zeros(2, 3, dtype=torch.bool),
    )
    case = Case(query, docs, masks, pairing_of(target, masks))
    loss = InfoNCE(**SETTINGS[name])
    value = by_rows(loss, case)
    least = math.log(2) if loss.own_pair == "twice" else 0.0
    assert value.item() == pytest.approx(least, abs=1e-6)
    assert torch.autograd.grad(value, query)[0].abs().max() < 1e-6


def test_queries_that_share_a_target_are_no_negatives_of_it():
    masks = Blocks(
        torch.ones(2, 1, dtype=torch.bool), doc_queries=torch.eye(2, dtype=torch.bool)
    )  # as candidates decide it
    case = pairing_of(torch.tensor([0, 0]), masks, torch.tensor([0]))
    loss = InfoNCE(**SETTINGS["symmetric"])
    assert contrast(loss, torch.randn(2, 4), torch.randn(1, 4), case) == 0


@pytest.mark.parametrize("name", ["default", "all_blocks", "hardness_in_batch"])
def test_only_directions_count_for_cosines(batch, name):
    case = batch(4)
    loss = InfoNCE(**SETTINGS[name])
    longer = case._replace(query=3 * case.query, docs=case.docs / 7)
    torch.testing.assert_close(by_blocks(loss, longer), by_blocks(loss, case), rtol=1e-12, atol=0)
    dot = InfoNCE(similarity="dot")
    assert abs(by_blocks(dot, longer) - by_blocks(dot, case)) > 0.1


@pytest.mark.parametrize("evaluate", [by_rows, by_blocks])
@pytest.mark.parametrize("chosen", [("query_docs",), ALL])
def test_extreme_similarities_stay_finite(batch, evaluate, chosen):
    case = batch(0)
    loss = InfoNCE(blocks=chosen, similarity="dot", temperature=1e-3)
    query, docs = (side.detach().float().mul(1e3).requires_grad_() for side in case[:2])
    value = evaluate(loss, case._replace(query=query, docs=docs))
    assert value.isfinite()
    assert value > 1e3
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(value, [query, docs]))


def test_gradients_equal_finite_differences(batch):
    case = batch(3, width=4)
    loss = InfoNCE(temperature=0.3, learn_temperature=True, blocks=ALL).double()
    for evaluate in (by_rows, by_blocks):
        assert torch.autograd.gradcheck(
            lambda q, d, _, evaluate=evaluate: evaluate(loss, case._replace(query=q, docs=d)),
            (case.query, case.docs, loss.log_inverse),
            atol=1e-6,
        )


def test_hardness_has_no_gradient_of_its_own(batch):
    """The gradient of a weighted loss is that of the weighted softmax, not of the strength's own term."""
    case = batch(0)
    loss = InfoNCE(temperature=0.5, hardness="all", hardness_strength=4.0)
    cosine = F.cosine_similarity(case.query[:, None], case.docs[None], dim=-1)
    logits = 2 * cosine + 4.0 * cosine.detach()
    everyone, target = torch.arange(5), case.pairing.target
    own = 2 * cosine[everyone, target]
    logits = torch.where(case.masks.query_docs, logits, -torch.inf)
    logits = logits.index_put((everyone, target), own)
    expected = (logits.logsumexp(1) - own).mean()
    assert_equal(value_and_gradients(by_rows(loss, case), case), value_and_gradients(expected, case))


def test_temperature_and_strength_follow_their_schedules(batch):
    case = batch(0)
    loss = InfoNCE(Linear(0.1, 0.3, steps=10), hardness="all", hardness_strength=Linear(0.0, 4.0, steps=10))
    for step, temperature, strength in ((0, 0.1, 0.0), (5, 0.2, 2.0), (99, 0.3, 4.0)):
        now = case._replace(pairing=case.pairing._replace(step=step))
        settings = {"temperature": temperature, "hardness": "all", "hardness_strength": strength}
        torch.testing.assert_close(by_blocks(loss, now), slow_loss(now, settings), rtol=1e-10, atol=0)
