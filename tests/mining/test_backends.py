"""The nearest documents beside a slow sort of all of them, and what approximate indexes find of them."""

import importlib.util

import numpy as np
import pytest
from fake_device import FAKE, fake_device

from embedtrain.mining.backends import backend
from embedtrain.types import InputError
from embedtrain.vectors import topk
from embedtrain.vectors.topk import Exact, in_memory, nearest, pair_scores

NOTHING = np.empty(0, dtype=np.int64)
needs_faiss = pytest.mark.skipif(
    importlib.util.find_spec("faiss") is None, reason="needs faiss: pip install 'embedtrain[mine]'"
)


def unit(count, width, seed, dtype=np.float16):
    vectors = np.random.default_rng(seed).standard_normal((count, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(dtype)


def slow(queries, documents, banned, k, pool):
    """(numbers, scores) of each query by sorting every document."""
    numbers, scores = [], []
    for query, out in zip(queries, banned, strict=True):
        every = [
            (-float(sum(float(a) * float(b) for a, b in zip(query, documents[n], strict=True))), n)
            for n in range(pool)
            if n not in set(out.tolist())
        ]
        every = sorted(every)[:k]
        numbers.append([n for _, n in every] + [-1] * (k - len(every)))
        scores.append([-s for s, _ in every] + [-np.inf] * (k - len(every)))
    return np.array(numbers), np.array(scores)


@pytest.mark.parametrize("pool", [150, 120])
def test_nearest_is_a_sort_of_all_documents(monkeypatch, pool):
    monkeypatch.setattr(Exact, "block", 32)
    queries, documents = unit(9, 8, 1), unit(150, 8, 2)
    documents[40:60] = documents[3]  # ties, which the lower number wins
    documents[77] = queries[0]
    banned = [NOTHING, np.array([0, 3, 40]), np.arange(pool), *[np.array([n, n + 50]) for n in range(6)]]
    kept = in_memory(documents)
    found = nearest(queries, kept, banned, 7, Exact(kept, pool))
    numbers, scores = slow(queries, documents, banned, 7, pool)
    assert np.array_equal(found.numbers, numbers)
    assert np.array_equal(found.scores, scores)
    assert (found.numbers[2] == -1).all(), "all of its documents are banned"


def test_more_ties_than_are_fetched_at_first():
    documents = unit(400, 6, 3)
    documents[100:400] = documents[99]
    query = documents[99:100]
    kept = in_memory(documents)
    found = nearest(query, kept, [np.array([99, 101])], 5, Exact(kept, 400))
    assert found.numbers.tolist() == [[100, 102, 103, 104, 105]]


def test_a_query_with_many_banned_documents_has_as_many_as_others():
    queries, documents = unit(2, 8, 4), unit(500, 8, 5)
    banned = [NOTHING, np.argsort(-(documents @ queries[1]).astype(np.float64))[:300]]
    kept = in_memory(documents)
    found = nearest(queries, kept, [NOTHING, np.sort(banned[1])], 10, backend("exact", kept, 500))
    assert (found.numbers >= 0).all()
    assert not set(found.numbers[1].tolist()) & set(banned[1].tolist())


def test_scores_of_float16_vectors_do_not_depend_on_the_order_of_the_sum():
    queries, documents = unit(3, 384, 8), unit(3 * 50, 384, 9).reshape(3, 50, 384)
    shuffled = np.random.default_rng(0).permutation(384)
    assert np.array_equal(
        pair_scores(queries, documents), pair_scores(queries[:, shuffled], documents[:, :, shuffled])
    )


@needs_faiss
@pytest.mark.parametrize("index", ["ivf", "hnsw"])
def test_approximate_indexes_find_most(index):
    queries, documents = unit(30, 16, 10), unit(3000, 16, 11)
    kept, banned = in_memory(documents), [NOTHING] * 30
    near = nearest(queries, kept, banned, 10, backend(index, kept, 3000)).numbers
    every = nearest(queries, kept, banned, 10, backend("exact", kept, 3000)).numbers
    shared = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(near.tolist(), every.tolist(), strict=True)])
    assert shared > 0.3
    assert near.max() < 3000


def test_an_index_that_is_not_there(monkeypatch):
    kept = in_memory(unit(10, 4, 12))
    with pytest.raises(InputError, match="index must be one of exact, ivf, hnsw"):
        backend("annoy", kept, 10)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'embedtrain\[mine\]'"):
        backend("hnsw", kept, 10)


def test_documents_go_to_a_device_once(monkeypatch):
    queries, documents = unit(40, 8, 1), unit(150, 8, 2)
    banned, kept = [NOTHING] * 40, in_memory(documents)
    expected = nearest(queries, kept, banned, 7, Exact(kept, 150))
    monkeypatch.setattr(Exact, "device_block", 64)
    with fake_device() as counts:
        search = Exact(kept, 150, FAKE)
        found = [
            nearest(queries[rows], kept, banned[rows], 7, search) for rows in (slice(0, 20), slice(20, 40))
        ]
        sent = sum(counts.copies.values())
    assert np.array_equal(np.concatenate([part.numbers for part in found]), expected.numbers)
    assert np.array_equal(np.concatenate([part.scores for part in found]), expected.scores)
    assert sent == 2 + 3, "two blocks of queries, three of documents"


def test_documents_that_do_not_fit_are_sent_again(monkeypatch):
    documents = unit(150, 8, 2)
    kept = in_memory(documents)
    monkeypatch.setattr(Exact, "device_block", 64)
    monkeypatch.setattr(topk, "has_room", lambda *_: False)
    with fake_device() as counts:
        search = Exact(kept, 150, FAKE)
        both = [search(documents[:5].astype(np.float32), 4)[1] for _ in range(2)]
        assert sum(counts.copies.values()) == 2 * (1 + 3)
    assert np.array_equal(*both)
