"""Which pairs a model finds again, by hand and by a loop."""

import random

import numpy as np

from embedtrain.making.consistency import ranks_of
from embedtrain.making.maker import Pair
from embedtrain.vectors.topk import in_memory


def test_ranks_count_nearer_texts_of_other_queries():
    pairs = [Pair("a", "x"), Pair("a", "y"), Pair("b", "y"), Pair("c", "z")]
    queries = np.array([[1, 0], [1, 0], [0.6, 0.8], [0, 1]], np.float32)
    texts = np.array([[1, 0], [0.8, 0.6], [0.9, -0.43589]], np.float32)  # x, y, z
    found = ranks_of(pairs, in_memory(queries), in_memory(texts), ["x", "y", "z"])
    assert found.tolist() == [0, 1, 0, 2], "x is no rival of y for a, since both belong to it; z is one"


def test_ranks_equal_those_of_a_loop():
    draw, numbers = random.Random(2), np.random.default_rng(2)
    names = [f"t{number}" for number in range(30)]
    pairs = [Pair(f"q{draw.randrange(12)}", draw.choice(names)) for _ in range(40)]
    texts = [*names, *(pair.query for pair in pairs)]
    vectors = {name: vector / np.linalg.norm(vector) for name in texts for vector in [numbers.normal(size=8)]}
    expected = []
    for query, positive in pairs:
        own = vectors[query] @ vectors[positive]
        alike = {other.positive for other in pairs if other.query == query}
        rivals = [name for name in names if name not in alike]
        expected.append(sum(vectors[query] @ vectors[name] > own + 1e-6 for name in rivals))
    rows = (np.stack([vectors[name] for name in some]) for some in ([pair.query for pair in pairs], names))
    assert ranks_of(pairs, *map(in_memory, rows), names).tolist() == expected
