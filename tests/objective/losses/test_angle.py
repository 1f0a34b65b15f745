import cmath
import math

import pytest
import torch
import torch.nn.functional as F
from fixed_pairing import fixed
from pairs_of import pair
from random_batches import random_links

from embedtrain.objective.losses.angle import AnglE, Angle, AnglETriples, angle_similarity
from embedtrain.objective.losses.contrastive import InfoNCE
from embedtrain.objective.losses.scored import CoSENT
from embedtrain.objective.schedule import Linear
from embedtrain.objective.similarity.blocks import contrast
from embedtrain.rules import MarginPos
from embedtrain.types import InputError

SCORES = torch.tensor([1.0, 0.2, 1.0, torch.nan, 0.0])


def vectors(seed, *counts, width=6):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(count, width, generator=generator, dtype=torch.float64, requires_grad=True)
        for count in counts
    ]


def triples(width=6, seed=0):
    """Four queries; the first and third brought two and one hard negatives, documents in no order."""
    query, docs = vectors(seed, 4, 7, width=width)
    owner = torch.tensor([0, 2, 1, 0, 3, 0, 2])
    return query, docs, fixed(torch.tensor([3, 2, 1, 4]), torch.ones(4, 7, dtype=torch.bool), owner=owner)


def scored(width=6, seed=0):
    query, docs = vectors(seed, 5, 5, width=width)
    order = torch.tensor([2, 0, 4, 1, 3])
    return query, docs, fixed(order, torch.ones(5, 5, dtype=torch.bool), scores=SCORES)


def test_angle_similarity_is_complex_division():
    left, right = vectors(0, 9, 9)
    for x, y, value in zip(
        left.tolist(), right.tolist(), angle_similarity(left, right).tolist(), strict=True
    ):
        z = [complex(*pair) for pair in zip(x[:3], x[3:], strict=True)]
        w = [complex(*pair) for pair in zip(y[:3], y[3:], strict=True)]
        modulus = sum(abs(item) ** 2 for item in w)
        quotients = [a * b.conjugate() / modulus for a, b in zip(z, w, strict=True)]  # one modulus for all
        ratio = math.hypot(*x) / math.hypot(*y)
        total = sum(quotient.real + quotient.imag for quotient in quotients) / ratio
        assert value == pytest.approx(abs(total), rel=1e-12)


def test_angle_similarity_of_one_coordinate_is_its_angle():
    for angle in (0.0, 0.3, 1.2, 2.0):
        turned = cmath.rect(2.0, angle)
        left, right = torch.tensor([[turned.real, turned.imag]]), torch.tensor([[3.0, 0.0]])
        expected = abs(math.cos(angle) + math.sin(angle))
        assert float(angle_similarity(left, right)) == pytest.approx(expected, rel=1e-6)


def slow_ranking(values, labels):
    total = 1.0
    for low, x in zip(labels, values, strict=True):
        for high, y in zip(labels, values, strict=True):
            if low < high:
                total = total + torch.exp(20 * (x - y))
    return torch.log(torch.as_tensor(total))


def test_angle_ranks_scored_pairs():
    query, docs, pairing = scored()
    rows = [0, 1, 2, 4]
    similar = angle_similarity(query[rows], docs[pairing.target[rows]])
    slow = slow_ranking(similar, SCORES[rows].tolist())
    torch.testing.assert_close(Angle()(query, docs, pairing), slow, rtol=1e-10, atol=0)


def test_angle_ranks_positives_above_own_negatives():
    query, docs, pairing = triples()
    asks, answers = [0, 1, 2, 3, 0, 0, 2], [3, 2, 1, 4, 0, 5, 6]
    slow = slow_ranking(angle_similarity(query[asks], docs[answers]), [1, 1, 1, 1, 0, 0, 0])
    torch.testing.assert_close(Angle(labels="negatives")(query, docs, pairing), slow, rtol=1e-10, atol=0)


def test_in_batch_part_sees_every_other_text_and_only_positives_count():
    query, docs, pairing = scored()
    texts = F.normalize(torch.cat([query, docs[pairing.target]]), dim=-1)  # rows i and i + 5 are a pair
    logits = 20 * texts @ texts.T
    total = 0.0
    for row in (0, 2, 5, 7):  # pairs 0 and 2 are scored 1
        others = torch.cat([logits[row, :row], logits[row, row + 1 :]])
        total = total + others.logsumexp(0) - logits[row, (row + 5) % 10]
    value = AnglE(0.0, 1.0, 0.0)(query, docs, pairing)
    torch.testing.assert_close(value, total / 10, rtol=1e-10, atol=0)


def test_in_batch_part_keeps_to_what_is_allowed():
    query, docs, pairing = scored()
    allowed = torch.ones(5, 5, dtype=torch.bool)
    allowed[0, 3] = allowed[2, 3] = False
    strict = fixed(pairing.target, allowed, scores=SCORES)
    ask = AnglE(0.0, 1.0, 0.0)
    gradient = torch.autograd.grad(ask(query, docs, strict), docs)[0]
    assert ask(query, docs, strict) < ask(query, docs, pairing)
    assert not gradient[3].any()  # of the pairs that count, neither text may be contrasted with it
    nobody = fixed(
        pairing.target, torch.eye(5, dtype=torch.bool)[pairing.target], scores=SCORES,
        query_queries=torch.zeros(5, 5, dtype=torch.bool),
    )  # fmt: skip
    torch.testing.assert_close(ask(query, docs, nobody), query.new_zeros(()), rtol=0, atol=1e-12)


def test_mixtures_are_the_sum_of_their_parts():
    query, docs, pairing = scored()
    parts = 0.5 * CoSENT()(query, docs, pairing) + 3 * Angle()(query, docs, pairing)
    parts = parts + 2 * AnglE(0.0, 1.0, 0.0)(query, docs, pairing)
    torch.testing.assert_close(AnglE(0.5, 2.0, 3.0)(query, docs, pairing), parts, rtol=1e-12, atol=0)
    query, docs, pairing = triples()
    parts = 0.5 * CoSENT(labels="negatives")(query, docs, pairing)
    parts = parts + 3 * Angle(labels="negatives")(query, docs, pairing)
    parts = parts + 2 / 2 * contrast(InfoNCE(0.05), query, docs[[3, 2, 1, 4]], positives_alone())
    parts = parts + 4 / 2 * contrast(InfoNCE(0.05), query, docs, pairing)
    torch.testing.assert_close(
        AnglETriples(0.5, 2.0, 4.0, 3.0)(query, docs, pairing), parts, rtol=1e-12, atol=0
    )


def positives_alone():
    return fixed(torch.arange(4), torch.ones(4, 4, dtype=torch.bool))


LOSSES = {
    "Angle": (Angle(0.5), scored),
    "AngleNegatives": (Angle(0.5, "negatives"), triples),
    "AnglE": (AnglE(0.5, 2.0, 3.0, temperature=0.5), scored),
    "AnglETriples": (AnglETriples(0.5, 2.0, 4.0, 3.0, temperature=0.5), triples),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_equal_finite_differences(name):
    loss, make = LOSSES[name]
    query, docs, pairing = make()
    assert torch.autograd.gradcheck(lambda q, d: loss(q, d, pairing), (query, docs), atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_norms_play_no_part_and_documents_may_stand_in_any_order(name):
    loss, make = LOSSES[name]
    query, docs, pairing = make()
    value = loss(query, docs, pairing)
    order = torch.randperm(len(docs), generator=torch.Generator().manual_seed(0))
    moved = fixed(
        order.argsort()[pairing.target], torch.ones(len(query), len(docs), dtype=torch.bool),
        scores=pairing.scores, owner=pairing.owner[order],
    )  # fmt: skip
    torch.testing.assert_close(loss(5 * query, docs[order] / 3, moved), value, rtol=1e-12, atol=0)


def test_weights_may_follow_a_schedule():
    query, docs, pairing = scored()
    fading = AnglE(0.0, Linear(30.0, 0.0, steps=10), 1.0)
    for step, weight in ((0, 30.0), (5, 15.0), (10, 0.0)):
        value = fading(query, docs, pairing._replace(step=step))
        assert value == AnglE(0.0, weight, 1.0)(query, docs, pairing)


@pytest.mark.parametrize("name", LOSSES)
def test_odd_dims_name_the_cure(name):
    loss, make = LOSSES[name]
    query, docs, pairing = make(width=5)
    with pytest.raises(InputError, match=r"dim 5 is odd: choose even dims in the plan"):
        loss(query, docs, pairing)
    assert "even_dims" in loss.needs


def test_a_rule_that_asks_the_model_is_given_its_cosines():
    links = random_links(3)
    query, docs = vectors(1, 7, len(links.docs))
    pairing = pair(links, rules=[MarginPos(margin=0.0, by="student")])
    assert pairing.candidates.needs_student
    loss = AnglETriples(angle_weight=0.5)
    value = loss(query, docs, pairing)
    assert torch.isfinite(value)
    assert value < loss(query, docs, pair(links))  # the hardest negatives are out


def test_missing_labels_name_the_cure():
    query, docs, pairing = scored()
    with pytest.raises(InputError, match=r'AnglE needs a "score" on the training rows'):
        AnglE()(query, docs, pairing._replace(scores=None))
    with pytest.raises(InputError, match=r'AnglETriples needs hard negatives .*add "negatives"'):
        AnglETriples()(query, docs, pairing)
