"""InfoNCE against sentence-transformers' own losses on equal vectors, and what goes wrong there alone.

The model is a table of vectors, so value and gradients compare to the last digits. What goes wrong there:

- Matryoshka normalises before the loss: dot products become cosines.
- A cached loss cannot be used by two Matryoshka losses.
- No loss that is computed in chunks can train several layers.
"""

import itertools

import pytest
import torch
import torch.nn.functional as F
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers.util import cos_sim, dot_score
from vector_tables import (
    DIMS,
    FEWEST,
    MATRYOSHKA,
    WEIGHTS,
    B,
    D,
    assert_equal,
    ours,
    pairing_of,
    theirs,
    vector_tables,
)  # fmt: skip

from embedtrain.objective import plan
from embedtrain.objective.losses.contrastive import InfoNCE
from embedtrain.objective.matryoshka import Objective
from embedtrain.objective.similarity.blocks import contrast
from embedtrain.types import Embeddings

NAMES = {
    "query_to_doc": "query_docs",
    "query_to_query": "query_queries",
    "doc_to_query": "doc_queries",
    "doc_to_doc": "doc_docs",
}
HARDNESS = {None: None, "in_batch_negatives": "in_batch", "hard_negatives": "hard", "all_negatives": "all"}
SUBSETS = [
    ("query_to_doc", *others)
    for count in range(4)
    for others in itertools.combinations(("query_to_query", "doc_to_query", "doc_to_doc"), count)
]
PARTITIONS = [(directions, "joint") for directions in SUBSETS] + [
    (("query_to_doc",), "per_direction"),
    (("query_to_doc", "doc_to_query"), "per_direction"),
]


def infonce(directions, partition, hardness=None, strength=0.0, **settings):
    """Our name of their settings."""
    joint = partition == "joint"
    return InfoNCE(
        blocks=[NAMES[name] for name in directions],
        partition="joint" if joint else "separate",
        own_pair="twice" if joint and "doc_to_query" in directions else "once",
        hardness=HARDNESS[hardness],
        hardness_strength=strength,
        **settings,
    )


@pytest.mark.parametrize("hardness", HARDNESS)
@pytest.mark.parametrize(("directions", "partition"), PARTITIONS)
@pytest.mark.parametrize("columns", [2, 4])
def test_every_option_of_multiple_negatives_ranking(directions, partition, hardness, columns):
    model, _ = vector_tables(columns)
    strength = 0.0 if hardness is None else 3.0
    options = {
        "directions": directions,
        "partition_mode": partition,
        "hardness_mode": hardness,
        "hardness_strength": strength,
    }
    loss = infonce(directions, partition, hardness, strength)
    mine = ours(loss, model, pairing_of(columns), budget=FEWEST)
    assert_equal(mine, theirs(MultipleNegativesRankingLoss(model, **options), model, columns))
    cached = CachedMultipleNegativesRankingLoss(model, mini_batch_size=6, **options)
    assert_equal(mine, theirs(cached, model, columns))


def test_scale_and_dot_products():
    model, _ = vector_tables(3)
    their_loss = MultipleNegativesRankingLoss(model, scale=0.5, similarity_fct=dot_score)
    loss = InfoNCE(2.0, similarity="dot")
    assert_equal(ours(loss, model, pairing_of(3)), theirs(their_loss, model, 3))


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize(
    ("directions", "partition", "hardness"),
    [
        (("query_to_doc",), "joint", None),
        (SUBSETS[-1], "joint", "hard_negatives"),
        (("query_to_doc", "doc_to_query"), "per_direction", "in_batch_negatives"),
    ],
)
def test_matryoshka_over_multiple_negatives_ranking(directions, partition, hardness, cached):
    model, _ = vector_tables(3)
    strength = 0.0 if hardness is None else 3.0
    kind = CachedMultipleNegativesRankingLoss if cached else MultipleNegativesRankingLoss
    inner = kind(
        model,
        directions=directions,
        partition_mode=partition,
        hardness_mode=hardness,
        hardness_strength=strength,
    )
    loss = infonce(directions, partition, hardness, strength)
    mine = ours(loss, model, pairing_of(3), MATRYOSHKA(0), budget=FEWEST)
    assert_equal(mine, theirs(MatryoshkaLoss(model, inner, DIMS, WEIGHTS), model, 3))


def test_dot_products_keep_their_norms_under_matryoshka():
    model, _ = vector_tables(2)
    with_dot, with_cosine = (
        theirs(
            MatryoshkaLoss(model, MultipleNegativesRankingLoss(model, 1.0, similarity), DIMS, WEIGHTS),
            model,
            2,
        )
        for similarity in (dot_score, cos_sim)
    )
    torch.testing.assert_close(with_dot[0], with_cosine[0])
    mine = ours(InfoNCE(1.0, similarity="dot"), model, pairing_of(2), MATRYOSHKA(0))
    query, docs = model.vectors[:B], model.vectors[B:]
    expected = sum(
        weight * F.cross_entropy(query[:, :dim] @ docs[:, :dim].T, torch.arange(B))
        for dim, weight in zip(DIMS, WEIGHTS, strict=True)
    )
    assert_equal(mine, (expected.detach(), torch.autograd.grad(expected, model.vectors)[0]))
    assert abs(mine[0] - with_dot[0]) > 0.1


def test_one_loss_serves_many_objectives():
    model, _ = vector_tables(2)
    cached = CachedMultipleNegativesRankingLoss(model, mini_batch_size=6)
    first = theirs(MatryoshkaLoss(model, cached, DIMS, WEIGHTS), model, 2)
    with pytest.raises(ValueError, match="cannot be greater than the model's embedding dimension"):
        theirs(MatryoshkaLoss(model, cached, DIMS, WEIGHTS), model, 2)
    loss = InfoNCE()
    assert_equal(ours(loss, model, pairing_of(2), MATRYOSHKA(0)), first)
    assert_equal(ours(loss, model, pairing_of(2), MATRYOSHKA(0), budget=FEWEST), first)


def test_chunks_train_several_layers():
    model, _ = vector_tables(2)
    chosen = plan.Grid(layers=[1, 2], dims=[4, D], num_layers=2, width=D)(0)
    layers = torch.stack([model.vectors, model.vectors.flip(1).cos()])
    sides = Embeddings(layers[:, :B], (1, 2)), Embeddings(layers[:, B:], (1, 2))
    loss = infonce(SUBSETS[-1], "joint", "in_batch_negatives", 2.0)
    total = Objective(loss, similarity_budget=FEWEST)(*sides, pairing_of(2), chosen).total
    expected = sum(
        weight * contrast(loss, sides[0].raw(sub), sides[1].raw(sub), pairing_of(2)) for sub, weight in chosen
    )
    gradients = [
        torch.autograd.grad(value, model.vectors, retain_graph=True)[0] for value in (total, expected)
    ]
    assert_equal((total.detach(), gradients[0]), (expected.detach(), gradients[1]))
