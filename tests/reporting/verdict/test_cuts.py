"""Cuts that collapse, from facts made by hand; the other diagnoses are provoked by real runs."""

from embedtrain.files.measured.health import Health
from embedtrain.reporting.verdict.cuts import collapsing_cuts
from embedtrain.reporting.verdict.facts import Facts
from embedtrain.types import Score, SubModel

SMALL, WHOLE = SubModel(1, 8), SubModel(2, 16)


def line(sub, cosine, *, step=4, rank=5.0):
    return Health("a", step, "find", *sub, "w", 9, -1.0, rank, 0.0, 1.0, cosine, (1,))


def score(sub, value):
    return Score("a", 4, "find", "test", *sub, "ndcg_at_10", value)


def looked_at(*health, scores=(), before=()):
    facts = Facts("a", 4, words=["data.train=x", "plan=full"], trained=(SMALL, WHOLE), whole=WHOLE)
    return collapsing_cuts(facts._replace(health=health, scores=scores, before=before))


def test_vectors_that_became_alike_are_collapsed():
    found = looked_at(line(SMALL, 0.4, step=0), line(SMALL, 0.97), line(WHOLE, 0.3))
    assert found.name == "collapse"
    assert found.text.startswith("L1_D8 gives different texts a mean cosine of 0.97")
    assert found.cure.endswith("plan=fixed_pairs 'plan.pairs=[[1,8],[2,16]]' 'plan.weights=[3,1]'")


def test_one_direction_is_a_collapse_too():
    assert looked_at(line(SMALL, 0.5, rank=1.1)).name == "collapse"


def test_a_cut_that_fell_below_half_of_the_score_is_named():
    now = [score(SMALL, 0.2), score(WHOLE, 0.6)]
    found = looked_at(scores=now, before=[score(SMALL, 0.3), score(WHOLE, 0.5)])
    assert "L1_D8 fell to 33% of the whole model's score" in found.text
    assert looked_at(scores=now, before=[score(SMALL, 0.1), score(WHOLE, 0.5)]) is None, "it gained"
    assert looked_at(scores=now) is None, "nobody knows what it was"


def test_a_whole_model_that_collapsed_asks_for_smaller_steps():
    assert "optim.lr=" in looked_at(line(WHOLE, 0.99)).cure


def test_healthy_cuts_and_those_that_were_alike_before_say_nothing():
    good = [score(SMALL, 0.5), score(WHOLE, 0.6)]
    assert looked_at(line(SMALL, 0.95, step=0), line(SMALL, 0.92), line(WHOLE, 0.3), scores=good) is None
    assert looked_at() is None
