import pytest
import torch
from fixed_pairing import fixed
from pairs_of import pair, whole
from random_batches import random_embeddings, random_links
from torch import nn

from embedtrain.objective import plan
from embedtrain.objective.distill.kl import LayerKL, PrefixKL
from embedtrain.objective.distill.scores import ScoreKL
from embedtrain.objective.losses.angle import AnglETriples
from embedtrain.objective.losses.contrastive import InfoNCE
from embedtrain.objective.losses.regularizers import OPL
from embedtrain.objective.losses.scored import CoSENT
from embedtrain.objective.losses.triples import Triplet
from embedtrain.objective.matryoshka import Objective
from embedtrain.objective.similarity.blocks import contrast
from embedtrain.rules import MarginPos
from embedtrain.types import Blocks, Embeddings, RowFacts, SubModel, Weighted

MODEL = {"num_layers": 3, "width": 8}
LOSSES = {
    "infonce": InfoNCE,
    "symmetric": lambda: InfoNCE(blocks=["query_docs", "doc_queries"], partition="separate"),
    "four blocks": lambda: InfoNCE(
        blocks=["query_docs", "query_queries", "doc_queries", "doc_docs"],
        hardness="in_batch",
        hardness_strength=2.0,
    ),
    "learned": lambda: InfoNCE(learn_temperature=True).double(),
    "cosent": CoSENT,
}
PLANS = {
    "full": plan.Full(**MODEL),
    "dims": plan.Dims([2, 4, 8], [1, 2, 3], **MODEL),
    "fixed_pairs": plan.FixedPairs([[1, 2], [2, 4], [3, 8]], **MODEL),
    "random2d": plan.Random2d([2, 4, 8], dims_per_step=2, **MODEL),
    "grid": plan.Grid(dims=[2, 8], per_step=2, **MODEL),
}
DISTILLS = {"none": None, "prefix": PrefixKL(), "layer": LayerKL(), "scores": ScoreKL(0.7, 0.2)}


def alone(loss, query, docs, pairing):
    """A loss on one sub-model."""
    if isinstance(loss, InfoNCE):
        return contrast(loss, query, docs, pairing)
    return loss(query, docs, pairing)


def learned(distill, query, docs, pairing, chosen):
    """What a distillation adds."""
    if not isinstance(distill, ScoreKL):
        return distill(Embeddings(torch.cat([query.values, docs.values], 1), query.layers), chosen, None)
    subs = {item.sub for item in chosen}
    facts = RowFacts(torch.arange(len(pairing.target)), pairing.target, pairing.step)
    scores = {sub: query.at(sub) @ docs.at(sub).T for sub in subs}
    rows = [
        distill.rows(scores[sub], scores[max(subs)], whole(pairing).blocks.query_docs, facts)
        for sub in subs - {max(subs)}
    ]
    return torch.stack(rows).mean(1).sum() if rows else torch.zeros(())


def split(texts, links):
    return texts.rows(links.query), texts.rows(links.docs)


@pytest.mark.parametrize("distill", DISTILLS)
@pytest.mark.parametrize("chooser", PLANS)
@pytest.mark.parametrize("loss", LOSSES)
def test_total_is_the_weighted_sum_over_the_plan(loss, chooser, distill):
    links = random_links(0)
    texts = random_embeddings(0, layers=3, texts=12, width=8)
    pairing, inner, distilling = pair(links), LOSSES[loss](), DISTILLS[distill]
    for step in range(3):
        chosen = PLANS[chooser](step)
        query, docs = split(texts, links)
        value = Objective(inner, distilling)(query, docs, pairing, chosen)
        slow = sum(weight * alone(inner, query.raw(sub), docs.raw(sub), pairing) for sub, weight in chosen)
        if distilling is not None:
            slow = slow + learned(distilling, query, docs, pairing, chosen)
        torch.testing.assert_close(value.total, slow, rtol=1e-12, atol=0)
        gradients = [
            torch.autograd.grad(total, texts.values, retain_graph=True)[0] for total in (value.total, slow)
        ]
        torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-13)
        assert [sub for sub, _ in value.parts] == [item.sub for item in chosen]
        weighted = sum(item.weight * part for item, (_, part) in zip(chosen, value.parts, strict=True))
        assert not weighted.requires_grad
        rest = 0 if value.distillation is None else value.distillation
        torch.testing.assert_close(weighted + rest, value.total.detach(), rtol=1e-12, atol=0)
        assert (value.distillation is None) == (distilling is None)


def test_documents_in_another_order_change_nothing():
    links = random_links(1)
    texts = random_embeddings(1, layers=3, texts=12, width=8)
    order = torch.randperm(len(links.docs), generator=torch.Generator().manual_seed(0))
    moved = links._replace(
        docs=links.docs[order], owner=links.owner[order], positive=order.argsort()[links.positive]
    )
    objective, chosen = Objective(LOSSES["symmetric"](), PrefixKL()), PLANS["fixed_pairs"](0)
    totals = [objective(*split(texts, each), pair(each), chosen).total for each in (links, moved)]
    torch.testing.assert_close(*totals, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(total, texts.values)[0] for total in totals]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-13)


class Counting(nn.Module):
    """Counts its calls and keeps the type of what it was given."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, query, docs, pairing):
        self.seen.append((query.shape[1], query.dtype, (query @ docs.T).dtype))
        return query.sum() + docs.sum()


def small(dtype, width=8):
    values = torch.ones(2, 3, width, dtype=dtype)
    everyone = fixed(torch.arange(3), torch.ones(3, 3, dtype=torch.bool))
    return Embeddings(values, (1, 2)), everyone


def test_a_sub_model_listed_twice_is_computed_once_with_both_weights():
    embeddings, pairing = small(torch.float64)
    loss = Counting()
    chosen = (Weighted(SubModel(2, 4), 0.5), Weighted(SubModel(2, 8), 1.0), Weighted(SubModel(2, 4), 2.0))
    value = Objective(loss)(embeddings, embeddings, pairing, chosen)
    assert [width for width, *_ in loss.seen] == [4, 8]
    assert value.total == 2.5 * 24 + 48
    assert [(*sub, float(part)) for sub, part in value.parts] == [(2, 4, 24.0), (2, 8, 48.0)]


@pytest.mark.parametrize(
    ("given", "used"),
    [*((dtype, torch.float32) for dtype in (torch.bfloat16, torch.float16, torch.float32)),
     (torch.float64, torch.float64)],
)  # fmt: skip
def test_losses_run_in_float32_or_better_even_under_autocast(given, used):
    embeddings, pairing = small(given)
    loss = Counting()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        Objective(loss)(embeddings, embeddings, pairing, (Weighted(SubModel(2, 8), 1.0),))
    assert loss.seen == [(8, used, used)]


def test_parameters_of_the_loss_belong_to_the_objective():
    objective = Objective(InfoNCE(learn_temperature=True), PrefixKL())
    assert [name for name, _ in objective.named_parameters()] == ["loss.log_inverse"]


def test_an_empty_choice_is_refused():
    embeddings, pairing = small(torch.float32)
    with pytest.raises(ValueError, match="a plan must choose at least one sub-model per step"):
        Objective(InfoNCE())(embeddings, embeddings, pairing, ())


@pytest.mark.parametrize("loss", [Triplet(5.0), OPL(), AnglETriples(), CoSENT(labels="negatives")])
def test_the_largest_sub_model_says_who_is_a_negative_of_all(loss):
    links, texts = random_links(0), random_embeddings(0, layers=3, texts=12, width=8)
    pairing, chosen = pair(links, rules=[MarginPos(by="student")]), PLANS["fixed_pairs"](0)
    query, docs = split(texts, links)
    cosines = query.at(SubModel(3, 8)) @ docs.at(SubModel(3, 8)).T
    allowed = whole(pairing, student=Blocks(cosines.detach())).blocks.query_docs
    assert (allowed != whole(pair(links)).blocks.query_docs).any()
    table = fixed(pairing.target, allowed, owner=pairing.owner, task=pairing.task)
    for sub, part in Objective(loss)(query, docs, pairing, chosen).parts:
        torch.testing.assert_close(part, loss(query.raw(sub), docs.raw(sub), table), rtol=1e-12, atol=0)
