import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score

from embedtrain.evaluation.per_item.weighted import STATISTICS, Sample

SLOW = {
    "mean": lambda values, gold: values.mean(),
    "pearson": lambda values, gold: stats.pearsonr(values, gold)[0],
    "spearman": lambda values, gold: stats.spearmanr(values, gold)[0],
    "average_precision": lambda values, gold: average_precision_score(gold, values),
}


def items(name, seed, n=40):
    """Values with many ties, and a gold that goes with them."""
    generator = np.random.default_rng(seed)
    values = np.round(generator.normal(size=n), 1)
    gold = np.round(values + generator.normal(size=n), 0)
    return values, (gold > 0).astype(float) if name == "average_precision" else gold


@pytest.mark.parametrize("name", STATISTICS)
@pytest.mark.parametrize("seed", range(5))
def test_counts_give_what_the_copied_items_give(name, seed):
    values, gold = items(name, seed)
    drawn = np.random.default_rng(seed + 100).integers(0, len(values), size=(8, len(values)))
    counts = np.stack([np.bincount(row, minlength=len(values)) for row in drawn]).astype(float)
    expected = [SLOW[name](values[row], gold[row]) for row in drawn]
    assert STATISTICS[name](values[None], gold, counts)[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_a_resample_of_one_item_alone_has_no_correlation(name):
    values, gold = items(name, 0)
    counts = np.zeros((1, len(values)))
    counts[0, 3] = len(values)
    assert np.isnan(STATISTICS[name](values[None], gold, counts)[0]).all()


def test_a_resample_without_a_positive_has_no_average_precision():
    counts = np.array([[1.0, 1.0, 0.0]])
    assert np.isnan(
        STATISTICS["average_precision"](np.arange(3.0)[None], np.array([0.0, 0.0, 1.0]), counts)
    ).all()


def test_the_score_is_the_plain_mean_over_parts_of_the_best_alternative():
    gold = np.array([0.0, 1.0, 1.0, 0.0, 1.0])
    values = np.array([[1.0, 5.0], [2.0, 4.0], [3.0, 6.0], [4.0, 1.0], [1.0, 2.0]])
    part = np.array([0, 0, 0, 1, 1])
    sample = Sample("average_precision", values, gold, part)
    first = max(average_precision_score(gold[:3], values[:3, k]) for k in range(2))
    second = max(average_precision_score(gold[3:], values[3:, k]) for k in range(2))
    assert sample.score() == pytest.approx((first + second) / 2)
