import numpy as np
import pytest
from scipy import stats

from embedtrain.evaluation.comparing.families import between_seeds, correct, over_seeds, signed_rank
from embedtrain.types import InputError

P = [0.01, 0.04, 0.03, 0.005, 0.5, 0.04]


def test_benjamini_hochberg_is_scipys():
    assert correct(P, "bh") == pytest.approx(stats.false_discovery_control(P, method="bh"))


def test_bonferroni_multiplies_and_none_leaves():
    assert correct(P, "bonferroni") == pytest.approx([min(1, 6 * p) for p in P])
    assert correct(P, "none") == P


def test_holm_steps_down():
    expected = []
    for p in P:
        smaller = [q for q in sorted(P) if q <= p]
        expected.append(min(1, max((len(P) - k) * q for k, q in enumerate(smaller))))
    assert correct(P, "holm") == pytest.approx(expected)


def test_holm_holds_the_chance_of_any_false_finding():
    generator = np.random.default_rng(0)
    families = generator.uniform(size=(2000, 10))
    any_false = np.mean([min(correct(family, "holm")) < 0.05 for family in families])
    assert any_false == pytest.approx(0.05, abs=0.015)
    assert np.mean(families.min(axis=1) < 0.05) > 0.35  # what happens without


def test_nothing_to_correct():
    assert correct([], "holm") == []
    with pytest.raises(InputError, match="one of holm, bh, bonferroni, none, got 'fdr'"):
        correct(P, "fdr")


@pytest.mark.parametrize(("n", "smallest"), [(6, 0.03125), (8, 0.0078125)])
def test_wilcoxon_of_few_tasks_is_exact_and_says_its_smallest_p(n, smallest):
    found = signed_rank(list(np.linspace(0.01, 0.3, n)))
    assert found.p == pytest.approx(smallest)
    assert found.smallest == pytest.approx(smallest)


def test_wilcoxon_is_scipys_without_zeros():
    differences = list(np.random.default_rng(2).normal(0.2, 1, size=15))
    found = signed_rank([*differences, 0.0, 0.0])
    theirs = stats.wilcoxon(differences)
    assert (found.n, found.statistic, found.p) == pytest.approx((15, theirs.statistic, theirs.pvalue))


def test_wilcoxon_of_nothing_but_zeros_sees_nothing():
    assert signed_rank([0.0, 0.0]).p == 1.0


def test_seeds_get_the_t_interval():
    values = [80.1, 80.9, 79.7, 80.4]
    found = over_seeds(values)
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert (found.n, found.mean, found.sd) == pytest.approx((4, np.mean(values), np.std(values, ddof=1)))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_one_seed_has_no_interval():
    assert over_seeds([0.8]) == (1, 0.8, None, None, None)
    with pytest.raises(InputError, match="no seed"):
        over_seeds([])


def test_the_t_interval_holds_the_mean_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(size=(1000, 3))
    found = [over_seeds(row) for row in draws]
    assert np.mean([one.low <= 0 <= one.high for one in found]) == pytest.approx(0.95, abs=0.025)


def test_the_same_seeds_are_paired_and_others_are_not():
    first = {"0": 0.70, "1": 0.80, "2": 0.90}
    second = {"0": 0.72, "1": 0.83, "2": 0.91}
    paired = between_seeds(first, second)
    theirs = stats.ttest_rel(list(second.values()), list(first.values()))
    assert (paired.p, paired.difference) == pytest.approx((theirs.pvalue, 0.02))
    assert (paired.low, paired.high) == pytest.approx(tuple(theirs.confidence_interval()))
    others = between_seeds(first, {"7": 0.72, "8": 0.83, "9": 0.91, "10": 0.90})
    theirs = stats.ttest_ind([0.72, 0.83, 0.91, 0.90], list(first.values()), equal_var=False)
    assert others.p == pytest.approx(theirs.pvalue)
    assert (others.low, others.high) == pytest.approx(tuple(theirs.confidence_interval()))


def test_one_seed_cannot_be_compared():
    with pytest.raises(InputError, match="at least 2 on each side, got 1 and 2"):
        between_seeds({"0": 0.7}, {"0": 0.7, "1": 0.8})
