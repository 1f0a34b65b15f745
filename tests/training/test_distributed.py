"""What ranks share: the three ways to gather, and the queue, against slow versions in one process."""

import pytest
import torch

from embedtrain.objective.similarity.negatives import Negatives
from embedtrain.training.steps.contrastive.batch_loss import BatchLoss, with_labels_of_equal_queries
from embedtrain.types import Embeddings, Guide, InputError, distinct_layers

TOLERANCE = 1e-10


def slow(two_ranks, case):
    """The mean over two ranks of the loss of each: own queries, constants of the other rank."""
    runner = two_ranks.Runner(case.loss, 0, 1)
    module, losses = runner.module, []
    module.zero_grad()
    for number in range(case.accumulate):
        halves = [two_ranks.batch_of(rank, 2, number) for rank in range(2)]
        for own, other in (halves, halves[::-1]):
            losses.append(own_loss(two_ranks, module, case, own, other))
    total = sum(losses) / len(losses)
    total.backward()
    return total.item(), torch.cat([item.grad.flatten() for item in module.parameters()])


def own_loss(two_ranks, module, case, own, other):
    """Documents of the other rank enter by hand as documents that nobody brought."""
    chosen = two_ranks.PLANS[case.plan](3)
    texts = module.encoder(own.inputs, distinct_layers(chosen))
    query, docs = texts.rows(own.links.query), texts.rows(own.links.docs)
    vectors = two_ranks.TinyGuide().embed(own.guide)
    guide = Guide(vectors[own.links.query], vectors[own.links.docs])
    links, queued = own.links, None
    if case.gather == "values":
        theirs = module.encoder(other.inputs, distinct_layers(chosen)).rows(other.links.docs)
        docs = Embeddings(torch.cat([docs.values, theirs.values.detach()], dim=1), docs.layers)
        more = two_ranks.TinyGuide().embed(other.guide)[other.links.docs]
        guide = guide._replace(docs=torch.cat([guide.docs, more]))
        links, queued = with_labels(own.links, other.links), queued_of(other.links)
    pairing = Negatives(rules=two_ranks.RULES[case.rule])(links, 3, guide, queued)
    return module.owned(query, docs, pairing, chosen).total


def queued_of(links):
    from embedtrain.objective.similarity.pairing import Queued

    hard = [row not in links.positive.tolist() for row in range(len(links.docs))]
    return Queued(links.content_ids[links.docs], links.task[links.owner], torch.tensor(hard))


def with_labels(own, other):
    """Labels of the other rank for queries of equal text and task, one by one."""
    known, owner = own.known.tolist(), own.known_owner.tolist()
    for text, brought in zip(other.known.tolist(), other.known_owner.tolist(), strict=True):
        for row in range(len(own.query)):
            same_text = own.content_ids[own.query[row]] == other.content_ids[other.query[brought]]
            if same_text and own.task[row] == other.task[brought]:
                known.append(text)
                owner.append(row)
    return own._replace(known=torch.tensor(known), known_owner=torch.tensor(owner))


@pytest.mark.parametrize("gather", ["values", "none"])
def test_a_loss_of_its_own_on_every_rank(results, cases, two_ranks, gather):
    cases = [case for case in cases if case.gather == gather and not case.queue]
    assert len(cases) == 4
    for case in cases:
        loss, gradient = slow(two_ranks, case)
        for found in results[2]:
            assert found[case][0] == pytest.approx(loss, abs=TOLERANCE)
            torch.testing.assert_close(found[case][1], gradient, rtol=0, atol=TOLERANCE)
        whole = results[1][0][case._replace(gather="gradient", chunk=None)]
        assert abs(loss - whole[0]) > 1e-3, "the case does not tell the ways apart"


def test_on_one_rank_all_ways_to_gather_are_the_same(results, cases):
    for case in cases:
        if case.gather != "gradient" and case._replace(gather="gradient") in results[1][0]:
            found, expected = results[1][0][case], results[1][0][case._replace(gather="gradient")]
            assert found[0] == pytest.approx(expected[0], abs=1e-12)
            torch.testing.assert_close(found[1], expected[1], rtol=0, atol=1e-12)


def test_the_queue_is_the_same_on_any_number_of_ranks(results, cases):
    cases = [case for case in cases if case.queue and case.gather == "gradient"]
    assert len(cases) == 12
    for case in cases:
        expected = results[1][0][case._replace(chunk=None)]
        for found in (*results[1], *results[2]):
            assert found[case][0] == pytest.approx(expected[0], abs=TOLERANCE)
            torch.testing.assert_close(found[case][1], expected[1], rtol=0, atol=TOLERANCE)


def test_queued_documents_are_negatives_without_gradient(two_ranks):
    """Against all candidates in one matrix, by hand."""
    case = two_ranks.Case("infonce", "full", "none", None, 1, queue=9)
    value, gradient = two_ranks.Runner("infonce", 0, 1).run(case)
    runner = two_ranks.Runner("infonce", 0, 1)
    encoder, (before, now) = runner.module.encoder, runner.batches
    past = unit(encoder, before)[before.links.docs].detach()
    ids, task = before.links.content_ids[before.links.docs], before.links.task[before.links.owner]
    last = {pair: place for place, pair in enumerate(zip(ids.tolist(), task.tolist(), strict=True))}
    kept = sorted(last.values())[-9:]
    texts, links = unit(encoder, now), now.links
    docs = torch.cat([texts[links.docs], past[kept]])
    doc_ids = torch.cat([links.content_ids[links.docs], ids[kept]])
    doc_task = torch.cat([links.task[links.owner], task[kept]])
    losses = []
    for row, (query, target) in enumerate(zip(links.query, links.positive, strict=True)):
        own = links.content_ids[query]
        twins = (links.content_ids[links.query] == own) & (links.task == links.task[row])
        known = links.known[twins[links.known_owner]]
        open_ = (doc_task == links.task[row]) & ~torch.isin(doc_ids, known) & (doc_ids != own)
        open_[target] = True
        logits = (texts[query] @ docs.T / 0.05)[open_]
        losses.append(logits.logsumexp(0) - texts[query] @ docs[target] / 0.05)
    loss = torch.stack(losses).mean()
    loss.backward()
    assert value == pytest.approx(loss.item(), abs=TOLERANCE)
    expected = torch.cat([item.grad.flatten() for item in runner.module.parameters()])
    torch.testing.assert_close(gradient, expected, rtol=0, atol=TOLERANCE)


def unit(encoder, batch):
    return torch.nn.functional.normalize(encoder(batch.inputs, (3,)).values[0], dim=-1)


def test_labels_of_twins_are_those_a_slow_search_finds(two_ranks):
    own, other = (two_ranks.batch_of(rank, 2).links for rank in range(2))
    other = other._replace(task=own.task[:1].expand(len(other.task)).clone())
    joined = torch.cat([own.content_ids, other.content_ids])
    everyone = other._replace(
        content_ids=joined,
        query=torch.cat([own.query, other.query + len(own.content_ids)]),
        known=torch.cat([own.known, other.known]),
        known_owner=torch.cat([own.known_owner, other.known_owner + len(own.query)]),
        task=torch.cat([own.task, other.task]),
    )
    twin = own._replace(content_ids=own.content_ids.clone())
    twin.content_ids[twin.query[0]] = other.content_ids[other.query[0]]
    everyone.content_ids[: len(own.content_ids)] = twin.content_ids
    found, expected = with_labels_of_equal_queries(twin, everyone), with_labels(twin, other)

    def couples(links):
        queries = zip(links.content_ids[links.query].tolist(), links.task.tolist(), strict=True)
        named = list(queries)
        return {
            (named[owner], text)
            for text, owner in zip(links.known.tolist(), links.known_owner.tolist(), strict=True)
        }

    assert couples(found) == couples(expected)
    assert couples(found) > couples(twin)


def test_gradients_travel_once_a_step(reductions):
    """Whatever the number of chunks: as often as without GradCache."""
    assert reductions == [{(None, 1): 1, (1, 1): 1, (1, 2): 1, (3, 2): 1}] * 2


def test_a_loss_that_is_not_finite_stops_chunks_too(two_ranks):
    runner = two_ranks.Runner("infonce", 0, 1)
    torch.nn.init.constant_(runner.module.encoder.table.weight, torch.nan)
    runner.run(two_ranks.Case("infonce", "full", "none", 3, 1))
    with pytest.raises(InputError, match=r"loss is nan at step 3, first at L3_D8\. Batch rows: 0, 1, 2, 3\."):
        runner.module.configure_gradient_clipping(None)  # before the optimiser steps


def test_an_unknown_way_to_gather_is_refused(two_ranks):
    with pytest.raises(InputError, match='gather must be "gradient", "values" or "none", got \'all\''):
        BatchLoss(two_ranks.objective_of("infonce"), gather="all")
