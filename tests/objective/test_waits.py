"""No loss waits for its device once a sub-model or a chunk; each computes there what it does on a CPU."""

import pytest
import torch
import torch.nn.functional as F
from every_loss import DISTILLS, PARTS, parts
from fake_device import FAKE, fake_device
from random_batches import random_links

from embedtrain.content_ids import content_id
from embedtrain.objective.matryoshka import Objective
from embedtrain.objective.similarity.negatives import Negatives
from embedtrain.objective.similarity.pairing import Queued
from embedtrain.rules import MarginPos
from embedtrain.transfers import moved
from embedtrain.types import Embeddings, Guide, SubModel, Weighted

WIDTH, GUIDE, QUERIES = 32, 4, 96
EXTRA = {"num_layers": 2, "width": WIDTH, "guide_width": GUIDE, "seed": 0}
SIX = tuple(Weighted(SubModel(layer, dim), 1.0 + dim / 8) for layer in (1, 2) for dim in (8, 16, 32))
RULES = {"none": (), "guide": (MarginPos(-0.05, by="guide"),), "student": (MarginPos(by="student"),)}
MOST_WAITS = 1  # of an objective: what the rules say of hard negatives, or a decomposition
# Kernels of a chunk of similarities, six sub-models: where the loss knows its derivative, and where autograd
# finds it, in up to four blocks for each sub-model
KNOWN = {"infonce", "weighted_sum", *(f"infonce + {name}" for name in DISTILLS)} - {
    "infonce + score_kl",
    "infonce + starbucks_retrieval",
}
MOST_KERNELS, MOST_OF_A_RULE, MOST_BY_AUTOGRAD = 60, 20, 850


def batch():
    links = random_links(3, queries=QUERIES)
    task = torch.where(links.task == 0, content_id("one"), links.task)
    return links._replace(task=task, teacher=torch.linspace(0, 1, len(links.docs)))


def further(links):
    """Documents of earlier steps."""
    return Queued(links.content_ids[:3], links.task[:3], torch.tensor([True, False, True]))


def evaluated(name, rule, *, device=None, budget=None, chosen=SIX):
    """Total, parts and gradient of an objective; the counts of the device."""
    objective, links = Objective(*parts(name, **EXTRA), similarity_budget=budget), batch()
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(2, len(links.content_ids), WIDTH, generator=draw)
    vectors = F.normalize(torch.randn(len(links.content_ids), GUIDE, generator=draw), dim=-1)
    later = further(links)
    with fake_device() as counts:
        if device is not None:
            objective, values, vectors = objective.to(device), values.to(device), vectors.to(device)
        values.requires_grad_()
        texts, before = Embeddings(values, (1, 2)), counts.copy()
        query, docs = (moved(rows, values.device) for rows in (links.query, links.docs))
        pairing = Negatives(rules=RULES[rule])(
            links,
            guide=Guide(vectors[query], torch.cat([vectors[docs], vectors[:3]])),
            queued=later,
            device=values.device,
        )
        documents = texts.rows(docs)
        documents = documents._replace(values=torch.cat([documents.values, values[:, :3].detach()], 1))
        found = objective(texts.rows(query), documents, pairing, chosen)
        found.total.backward()
        spent = counts.since(before)
        return [
            found.total.detach().cpu(),
            values.grad.cpu(),
            *(part.cpu() for _, part in found.parts),
        ], spent


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", PARTS)
def test_it_waits_once_whatever_the_sub_models_and_chunks(name, rule):
    chunk = 16 * (len(batch().docs) + 3) * len(SIX)
    (_, one), (_, six) = (evaluated(name, rule, device=FAKE, budget=budget) for budget in (2**30, chunk // 6))
    assert sum(six.waits.values()) <= MOST_WAITS, six.waits
    assert one.waits == six.waits
    known = MOST_KERNELS + MOST_OF_A_RULE * len(RULES[rule])
    most = known if name in KNOWN and rule != "student" else MOST_BY_AUTOGRAD
    assert (sum(six.kernels.values()) - sum(one.kernels.values())) / 5 <= most, six.kernels - one.kernels


@pytest.mark.parametrize("name", PARTS)
def test_a_device_computes_what_a_cpu_does(name):
    (found, _), (expected, _) = evaluated(name, "student", device=FAKE), evaluated(name, "student")
    assert any(value.any() for value in expected)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
