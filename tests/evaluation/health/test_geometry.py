"""Numbers of clouds whose answer is known."""

import numpy as np
import pytest

from embedtrain.evaluation.health.geometry import centred, cka, counts, effective_rank, geometry, hubness

NONE = np.empty((0, 2), dtype=np.int64)


def unit(rows):
    rows = np.asarray(rows, dtype=np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def cloud(count=40, dim=8, seed=0):
    return unit(np.random.default_rng(seed).normal(size=(count, dim)))


def looked_at(vectors, pairs=NONE):
    return geometry(vectors, pairs, centred(vectors @ vectors.T))


def test_of_equal_vectors_everything_says_collapse():
    found = looked_at(np.ones((6, 4)) / 2)
    assert found.mean_cosine == pytest.approx(1)
    assert found.uniformity == pytest.approx(0)
    assert found.effective_rank == pytest.approx(1, abs=1e-6)
    assert (found.hubness, found.alignment, found.positive) == (pytest.approx(found.hubness), None, ())
    assert sum(found.negative) == 15
    assert found.negative[-1] == 15


def test_of_the_axes_every_direction_counts():
    found = looked_at(np.eye(5))
    assert found.effective_rank == pytest.approx(5)
    assert found.mean_cosine == pytest.approx(0)
    assert found.uniformity == pytest.approx(-4)  # |x - y|^2 = 2 of every pair
    assert found.cka == pytest.approx(1)


def test_alignment_and_histograms_are_those_of_the_pairs():
    vectors = unit([[1, 0], [1, 0], [0, 1], [0, -1]])
    found = looked_at(vectors, np.array([[0, 1], [2, 3]]))
    assert found.alignment == pytest.approx((0 + 4) / 2)
    assert found.positive == counts(np.array([1.0, -1.0]))
    assert sum(found.negative) == 6 - 2
    assert found.negative == counts(np.zeros(4))


def test_uniformity_and_rank_equal_slow_loops():
    vectors = cloud()
    pairs = [(i, j) for i in range(len(vectors)) for j in range(i)]
    slow = np.log(np.mean([np.exp(-2 * np.sum((vectors[i] - vectors[j]) ** 2)) for i, j in pairs]))
    singular = np.linalg.svd(vectors, compute_uv=False)
    share = singular / singular.sum()
    found = looked_at(vectors)
    assert found.uniformity == pytest.approx(slow)
    assert found.effective_rank == pytest.approx(np.exp(-np.sum(share * np.log(share))))
    assert effective_rank(vectors[:5]) == pytest.approx(effective_rank(np.pad(vectors[:5], ((0, 0), (0, 9)))))


def test_a_hub_skews_how_often_texts_are_near():
    rows = cloud(60, 60)
    even = hubness(rows @ rows.T)
    hub = unit(np.vstack([rows[:-1], rows[:-1].sum(0)]))
    assert hubness(hub @ hub.T) > even + 1


def test_cka_knows_the_same_space_turned_and_another_one():
    vectors, other = cloud(seed=1), cloud(seed=2)
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(8, 8)))[0]
    gram = centred(vectors @ vectors.T)
    assert cka(gram, centred((vectors @ turn) @ (vectors @ turn).T)) == pytest.approx(1)
    assert cka(gram, centred(other @ other.T)) < 0.5
    assert cka(gram, np.zeros_like(gram)) == 0
