"""Each rule beside its formula, and what is chosen among those that rules leave."""

import numpy as np
import pytest

from embedtrain.mining.selection import Best, Sample, Selection
from embedtrain.rules.mining import Abs, Candidates, MarginPos, MinScore, PercPos, SkipTop
from embedtrain.types import InputError

FORMULAS = [  # rule, whether a candidate of score s and 0-based rank r stays beside a positive of score t
    (PercPos(0.95), lambda s, t, r: s < 0.95 * t),
    (PercPos(1.0), lambda s, t, r: s < t),
    (MarginPos(0.05), lambda s, t, r: s < t - 0.05),
    (MarginPos(-0.1), lambda s, t, r: s < t + 0.1),
    (Abs(0.7), lambda s, t, r: s < 0.7),
    (MinScore(0.2), lambda s, t, r: s >= 0.2),
    (SkipTop(2), lambda s, t, r: r >= 2),
]


def seen(seed=0, queries=6, candidates=9):
    draw = np.random.default_rng(seed)
    scores = -np.sort(-draw.uniform(-1, 1, (queries, candidates)).round(2), axis=1)
    ranks = np.tile(np.arange(candidates), (queries, 1))
    return Candidates(scores, draw.uniform(-1, 1, queries).round(2), ranks)


@pytest.mark.parametrize(("rule", "stays"), FORMULAS, ids=lambda part: getattr(part, "name", ""))
def test_a_rule_is_its_formula(rule, stays):
    given = seen()
    removed = rule.removes(given)
    assert removed.any()
    assert not removed.all()
    for row in range(6):
        for column in range(9):
            s, t, r = given.scores[row, column], given.reference[row], given.ranks[row, column]
            assert removed[row, column] == (not stays(s, t, r))


def test_a_score_at_the_bound_goes():
    given = Candidates(np.array([[0.76, 0.75]]), np.array([0.8]), np.array([[0, 1]]))
    assert PercPos(0.95).removes(given).tolist() == [[True, False]]
    assert Abs(0.76).removes(given).tolist() == [[True, False]]


def test_below_zero_the_published_formula_lets_candidates_above_the_positive_through():
    given = Candidates(np.array([[-0.39, -0.37]]), np.array([-0.4]), np.array([[0, 1]]))
    assert PercPos(0.95).removes(given).tolist() == [[False, True]]


def choose(selection, given, there=None):
    there = np.ones(given.scores.shape, dtype=bool) if there is None else there
    return selection.choose(given, there, [(0, row) for row in range(len(given.scores))])


def test_a_candidate_is_counted_for_the_first_rule_that_takes_it_out_and_never_comes_back():
    given = Candidates(np.array([[0.9, 0.8, 0.5, 0.4, 0.1]]), np.array([0.85]), np.array([[0, 1, 2, 3, 4]]))
    selection = Selection(rules=[SkipTop(1), PercPos(0.95), MinScore(0.2)], per_row=3, depth=5)
    verdict = choose(selection, given)
    assert {name: mask[0].tolist() for name, mask in verdict.removed.items()} == {
        "skip_top": [True, False, False, False, False],
        "perc_pos": [False, False, False, False, False],
        "min_score": [False, False, False, False, True],
    }
    strict = Selection(rules=[SkipTop(1), PercPos(0.6), MinScore(0.2)], per_row=3, depth=5)
    verdict = choose(strict, given)
    assert verdict.removed["perc_pos"][0].tolist() == [False, True, False, False, False]
    assert verdict.chosen.tolist() == [[2, 3, -1]], "fewer rather than those that a rule rejected"


def test_what_is_not_there_is_never_chosen_nor_counted():
    given, there = seen(1), np.zeros((6, 9), dtype=bool)
    there[:, :4] = True
    verdict = choose(Selection(rules=[Abs(0.0)], per_row=9, depth=9), given, there)
    assert verdict.chosen.max() < 4
    assert not verdict.removed["abs"][:, 4:].any()


def test_a_sample_is_of_the_first_survivors_and_a_function_of_its_key():
    survivors = np.array([1, 2, 5, 6, 8, 9, 11])
    drawn = [Sample(5)(survivors, 3, (0, 0, query)) for query in range(200)]
    assert all(np.array_equal(np.sort(found), found) and len(set(found)) == 3 for found in drawn)
    assert set(np.concatenate(drawn).tolist()) == {1, 2, 5, 6, 8}
    times = np.bincount(np.concatenate(drawn), minlength=9)[[1, 2, 5, 6, 8]]
    assert times.min() > 90, "each is drawn in 3 of 5"
    assert np.array_equal(Sample(5)(survivors, 3, (0, 0, 7)), Sample(5)(survivors, 3, (0, 0, 7)))
    assert Sample(5)(survivors[:2], 3, (0,)).tolist() == [1, 2]
    assert Best()(survivors, 3, (0,)).tolist() == [1, 2, 5]


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
        ({"rules": [Abs(0.1), Abs(0.2)]}, "two rules have one name: abs, abs"),
        ({"rules": [SkipTop(8)], "depth": 10, "per_row": 4}, "set depth to 12 or more"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(InputError, match=message):
        Selection(**settings)


@pytest.mark.parametrize(
    "make",
    [
        lambda: PercPos(0.0),
        lambda: PercPos(1.1),
        lambda: MarginPos(np.nan),
        lambda: SkipTop(-1),
        lambda: Sample(0),
    ],
)
def test_values_out_of_range(make):
    with pytest.raises(InputError, match="must be"):
        make()
