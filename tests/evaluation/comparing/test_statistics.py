import numpy as np
import pytest
from scipy import stats

from embedtrain.evaluation.comparing.resampling import sign_flips
from embedtrain.evaluation.comparing.statistics import (
    Settings,
    bca_interval,
    bootstrap,
    bootstrap_p,
    compare,
    compare_all,
    percentile_interval,
    verdict,
)
from embedtrain.evaluation.per_item.weighted import Sample
from embedtrain.types import InputError

FAST = Settings(resamples=400)


def means(values, part=None):
    values = np.asarray(values, dtype=float)
    parts = np.zeros(len(values), dtype=np.int64) if part is None else np.asarray(part)
    return Sample("mean", values[:, None], np.zeros(len(values)), parts)


def sign_flip(differences, resamples, seed):
    return sign_flips(differences[:, None], resamples, seed)[0]


def correlated(name, noise, seed, n=200):
    generator = np.random.default_rng(seed)
    gold = generator.normal(size=n)
    values = gold + noise * generator.normal(size=n)
    if name == "average_precision":
        gold = (gold > 0.5).astype(float)
    return Sample(name, values[:, None], gold, np.zeros(n, dtype=np.int64))


@pytest.mark.parametrize("method", ["percentile", "BCa"])
def test_intervals_are_scipys_for_the_same_resamples(method):
    values = np.random.default_rng(0).exponential(size=60)
    theirs = stats.bootstrap(
        (values,), np.mean, method=method, n_resamples=999, rng=np.random.default_rng(1), confidence_level=0.9
    )
    drawn = theirs.bootstrap_distribution
    left_out = (values.sum() - values) / 59
    mine = (
        percentile_interval(drawn, 0.9)
        if method == "percentile"
        else bca_interval(drawn, values.mean(), left_out, 0.9)
    )
    assert mine == pytest.approx(tuple(theirs.confidence_interval), abs=1e-12)


@pytest.mark.parametrize("name", ["mean", "spearman", "average_precision"])
def test_the_paired_bootstrap_has_scipys_centre_and_spread(name):
    first, second = correlated(name, 1.0, 0), correlated(name, 0.7, 0)
    assert np.array_equal(first.gold, second.gold)
    counted = bootstrap(first, second, 3000, 0)

    def slow(rows):
        one = np.bincount(rows.astype(int), minlength=200)[None].astype(float)
        return (second.under(one) - first.under(one))[0]

    theirs = stats.bootstrap(
        (np.arange(200.0),), slow, n_resamples=1500, method="percentile", rng=np.random.default_rng(3)
    )
    drawn = theirs.bootstrap_distribution
    assert counted.mean() == pytest.approx(drawn.mean(), abs=5 * drawn.std() / 1500**0.5)
    assert counted.std() == pytest.approx(drawn.std(), rel=0.1)


@pytest.mark.parametrize("n", [3, 6, 10])
def test_few_items_get_scipys_exact_p(n):
    differences = np.random.default_rng(n).normal(0.5, 1, size=n)
    theirs = stats.permutation_test(
        (differences,),
        lambda d, axis: d.mean(axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    )
    p, test = sign_flip(differences, 100, 0)
    assert p == pytest.approx(theirs.pvalue)
    assert test.startswith("exact")


def test_many_items_get_nearly_the_exact_p():
    differences = np.random.default_rng(0).normal(0.12, 1, size=150)
    p, _ = sign_flip(differences, 20_000, 0)
    theirs = stats.permutation_test(
        (differences,),
        lambda d, axis: d.mean(axis=axis),
        permutation_type="samples",
        n_resamples=20_000,
        vectorized=True,
        rng=np.random.default_rng(5),
    )
    assert p == pytest.approx(theirs.pvalue, abs=0.02)
    assert p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.02)


def test_a_random_p_is_never_zero():
    assert sign_flip(np.full(50, 1.0), 99, 0)[0] == pytest.approx(1 / 100)
    assert bootstrap_p(np.full(99, 1.0)) == pytest.approx(2 / 100)


@pytest.mark.parametrize("n", [9, 60])
def test_under_the_null_one_in_twenty_is_called_different(n):
    generator = np.random.default_rng(7)
    null = generator.standard_t(4, size=(1000, n))
    called = np.mean([sign_flip(row, 399, k)[0] < 0.05 for k, row in enumerate(null)])
    assert 0.03 <= called <= 0.07  # 0.05 and 3 standard errors of 1000 draws


def test_a_shift_is_found_as_often_as_theory_says():
    generator = np.random.default_rng(8)
    shifted = generator.normal(0.4, 1, size=(400, 60))
    found = np.mean([sign_flip(row, 399, k)[0] < 0.05 for k, row in enumerate(shifted)])
    spread = 0.4 * 60**0.5
    edge = stats.t.ppf(0.975, 59)
    power = stats.nct.sf(edge, 59, spread) + stats.nct.cdf(-edge, 59, spread)  # of the t test
    assert found == pytest.approx(power, abs=0.06)


def test_under_the_null_the_bootstrap_of_a_correlation_calls_one_in_twenty_different():
    called = 0
    for seed in range(300):
        generator = np.random.default_rng(seed)
        gold = generator.normal(size=120)
        one, two = ((gold + generator.normal(size=120))[:, None] for _ in range(2))
        part = np.zeros(120, dtype=np.int64)
        drawn = bootstrap(Sample("spearman", one, gold, part), Sample("spearman", two, gold, part), 199, seed)
        called += bootstrap_p(drawn) < 0.05
    assert 0.02 <= called / 300 <= 0.09


@pytest.mark.parametrize("kind", ["bca", "percentile"])
def test_intervals_hold_the_true_difference_as_often_as_they_say(kind):
    held = 0
    for seed in range(400):
        generator = np.random.default_rng(seed)
        values = generator.exponential(size=80)  # mean 1, skewed
        found = compare(means(np.zeros(80)), means(values), Settings(399, 0.9, kind, seed))
        held += found.low <= 1.0 <= found.high
    assert 0.85 <= held / 400 <= 0.94  # 0.9; three standard errors, and what 80 skewed values lack


@pytest.mark.parametrize("name", ["spearman", "pearson", "average_precision"])
def test_a_better_correlation_is_seen_and_its_interval_holds_the_difference(name):
    first, second = correlated(name, 2.0, 1), correlated(name, 0.3, 1)
    found = compare(first, second, FAST)
    assert found.difference == pytest.approx(second.score() - first.score())
    assert found.low < found.difference < found.high
    assert found.low > 0
    assert found.p < 0.05
    assert found.effect > 0
    assert verdict(found.difference, found.p, 0.05) == "better"


def test_turning_the_samples_turns_the_signs():
    generator = np.random.default_rng(0)
    one, two = means(generator.normal(size=40)), means(generator.normal(0.3, 1, size=40))
    there = compare(one, two, Settings(resamples=2000, interval="percentile"))
    back = compare(two, one, Settings(resamples=2000, interval="percentile"))
    assert (back.difference, back.low, back.high) == pytest.approx(
        (-there.difference, -there.high, -there.low)
    )
    assert back.p == there.p
    assert back.effect == pytest.approx(-there.effect)


def test_the_same_values_are_not_distinguishable():
    values = np.random.default_rng(0).uniform(size=30)
    found = compare(means(values), means(values), FAST)
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)
    assert verdict(found.difference, found.p, 0.05) == "not distinguishable"


def test_a_seed_gives_the_same_numbers_again():
    one, two = correlated("spearman", 1.0, 0), correlated("spearman", 0.8, 0)
    assert compare(one, two, FAST) == compare(one, two, FAST)
    assert compare(one, two, FAST._replace(seed=1)).low != compare(one, two, FAST).low


def test_parts_count_alike_whatever_their_size():
    part = np.array([0] * 90 + [1] * 10)
    better = np.where(part == 0, 0.0, 1.0) + np.random.default_rng(0).normal(0, 0.01, size=100)
    found = compare(means(np.zeros(100), part), means(better, part), FAST)
    assert found.difference == pytest.approx(0.5, abs=0.01)
    assert 0.49 < found.low < found.high < 0.51  # drawn within parts, so never all of one


def test_other_items_are_refused():
    with pytest.raises(InputError, match="30 items of a mean cannot be paired with 29 of a mean"):
        compare(means(np.zeros(30)), means(np.zeros(29)))
    one = correlated("spearman", 1.0, 0)
    with pytest.raises(InputError, match="other gold values"):
        compare(one, correlated("spearman", 1.0, 1))


def test_a_constant_gold_is_refused():
    flat = Sample("spearman", np.arange(5.0)[:, None], np.ones(5), np.zeros(5, dtype=np.int64))
    with pytest.raises(InputError, match="gold is constant"):
        compare(flat, flat)


@pytest.mark.parametrize(
    ("difference", "p", "said"),
    [(0.1, 0.01, "better"), (-0.1, 0.01, "worse"), (0.1, 0.05, "not distinguishable")],
)
def test_a_verdict_needs_a_p_below_alpha(difference, p, said):
    assert verdict(difference, p, 0.05) == said


def test_many_pairs_have_the_numbers_of_each_pair_alone():
    generator = np.random.default_rng(0)
    for kind in ("mean", "spearman"):
        gold = generator.normal(size=80)
        part = np.arange(80) % 2
        samples = [Sample(kind, (gold + generator.normal(size=80))[:, None], gold, part) for _ in range(4)]
        pairs = [(one, other) for one in range(4) for other in range(one)]
        every = compare_all(samples, pairs, FAST)
        alone = [compare(samples[one], samples[other], FAST) for one, other in pairs]
        assert every == alone


def test_differences_of_some_zeros_are_flipped_as_if_these_were_not_there():
    generator = np.random.default_rng(1)
    some = generator.normal(0.2, 1, size=(60, 3))
    some[generator.random(some.shape) < 0.4] = 0
    some[12:, 2] = 0  # few enough to count all patterns
    alone = [sign_flips(column[:, None], 20_000, 0)[0] for column in some.T]
    for (p, test), (mine, named) in zip(sign_flips(some, 20_000, 0), alone, strict=True):
        assert (p, test) == (pytest.approx(mine, abs=0.02), named)
