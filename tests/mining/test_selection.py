"""What is chosen among the candidates that rules leave."""

import numpy as np
import pytest

from embedtrain.mining.selection import Candidates, Sample, Selection
from embedtrain.objective.schedule import Stairs
from embedtrain.rules import Abs, MinScore, PercPos, TopK
from embedtrain.types import InputError


def candidates(scores, reference, there=None):
    """In the order of their ranks."""
    scores = np.array(scores)
    there = np.ones(scores.shape, dtype=bool) if there is None else there
    return Candidates(
        there, scores, np.array(reference), np.tile(np.arange(scores.shape[1]), (len(scores), 1))
    )


def choose(selection, given, step=0):
    return selection.choose(given, [(0, row) for row in range(len(given.scores))], step=step)


def test_a_candidate_is_counted_for_the_first_rule_that_removes_it_and_never_comes_back():
    given = candidates([[0.9, 0.8, 0.5, 0.4, 0.1]], [0.85])
    choice = choose(Selection(rules=[TopK(1), PercPos(0.95), MinScore(0.2)], per_row=3, depth=5), given)
    assert {name: mask[0].tolist() for name, mask in choice.removed.items()} == {
        "top_k": [True, False, False, False, False],
        "perc_pos": [False, False, False, False, False],
        "min_score": [False, False, False, False, True],
    }
    choice = choose(Selection(rules=[TopK(1), PercPos(0.6), MinScore(0.2)], per_row=3, depth=5), given)
    assert choice.removed["perc_pos"][0].tolist() == [False, True, False, False, False]
    assert choice.columns.tolist() == [[2, 3, -1]], "fewer rather than those that a rule rejected"
    assert given.there.all(), "the given ones are not written to"


def test_a_bound_may_follow_a_schedule():
    given = candidates([[0.9, 0.5]], [0.8])
    selection = Selection(rules=[Abs(Stairs({0: 1.0, 10: 0.6}))], per_row=2)
    assert [choose(selection, given, step).columns.tolist() for step in (0, 10)] == [[[0, 1]], [[1, -1]]]


def test_what_is_not_there_is_never_chosen_nor_counted():
    there = np.arange(9) < np.full((6, 1), 4)
    given = candidates(-np.sort(-np.random.default_rng(1).uniform(-1, 1, (6, 9))), np.zeros(6), there)
    choice = choose(Selection(rules=[Abs(0.0)], per_row=9, depth=9), given)
    assert choice.columns.max() < 4
    assert choice.removed["abs"].any()
    assert not choice.removed["abs"][:, 4:].any()


def test_a_sample_is_of_the_first_survivors_and_a_function_of_its_key():
    survivors = np.array([1, 2, 5, 6, 8, 9, 11])
    drawn = [Sample(5)(survivors, 3, (0, 0, query)) for query in range(200)]
    assert all(np.array_equal(np.sort(found), found) and len(set(found)) == 3 for found in drawn)
    assert set(np.concatenate(drawn).tolist()) == {1, 2, 5, 6, 8}
    times = np.bincount(np.concatenate(drawn), minlength=9)[[1, 2, 5, 6, 8]]
    assert times.min() > 90, "each is drawn in 3 of 5"
    assert np.array_equal(Sample(5)(survivors, 3, (0, 0, 7)), Sample(5)(survivors, 3, (0, 0, 7)))
    assert Sample(5)(survivors[:2], 3, (0,)).tolist() == [1, 2]
    assert Selection().draw(survivors, 3, (0,)).tolist() == [1, 2, 5]


def test_the_reference_is_the_lowest_or_the_highest_positive():
    scores = np.array([0.4, 0.9, 0.6])
    assert Selection().reference_of(scores) == 0.4
    assert Selection(reference="highest").reference_of(scores) == 0.9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"per_row": 0}, "per_row must be in 1..depth"),
        ({"per_row": 5, "depth": 4}, "per_row must be in 1..depth"),
        ({"reference": "mean"}, '"lowest" or "highest"'),
        ({"rules": [Abs(0.1), Abs(0.2)]}, "two rules are called abs"),
        ({"rules": [Abs(0.1, by="student")]}, "rule student_abs: by and blocks are settings of a batch"),
        ({"rules": [Abs(0.1, blocks=["doc_docs"])]}, "rule abs: by and blocks are settings of a batch"),
        ({"rules": [TopK(8)], "depth": 10, "per_row": 4}, "set depth to 12 or more"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(InputError, match=message):
        Selection(**settings)


def test_a_sample_is_of_one_or_more():
    with pytest.raises(InputError, match="among must be"):
        Sample(0)
