"""Contrastive losses against sentence-transformers' own on equal vectors, and what goes wrong there alone.

The model is a table of vectors, so value and gradients compare to the last digits. What goes wrong there:

- Matryoshka over GIST runs the guide once for every dim, and every such run builds B x B x D numbers.
- GIST under a negative margin lets every text be its own negative.
- GIST takes one hard negative at most; CachedGIST takes any number.
- Matryoshka normalises before the loss: dot products become cosines.
- A cached loss cannot be used by two Matryoshka losses.
- No loss that is computed in chunks can train several layers.
- Gathering leaves GIST's queries on their rank: what ranks sum to is not the loss of the whole batch.
"""

import itertools

import pytest
import torch
import torch.nn.functional as F
from sentence_transformers.sentence_transformer.losses import (
    CachedGISTEmbedLoss,
    CachedMultipleNegativesRankingLoss,
    GISTEmbedLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers.util import cos_sim, dot_score
from tokenizers import Tokenizer, models
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedTokenizerFast

from embedtrain.objective import blocks, plan
from embedtrain.objective.blocks import contrast
from embedtrain.objective.contrastive import InfoNCE
from embedtrain.objective.matryoshka import Objective
from embedtrain.objective.pairing import fixed, pair, whole
from embedtrain.objective.row_terms import RowTerm, Step
from embedtrain.objective.rules import Margin
from embedtrain.types import Embeddings, Guide, Links, SubModel

B, D, G = 20, 16, 8
DIMS, WEIGHTS = [4, 16, 8], [0.5, 1.0, 2.0]
FEWEST = 1  # budget that makes our chunks as small as they get: 16 of the 20 queries, then 4
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


class Table(nn.Module):
    """A model whose embedding of text i is row i; counts its calls."""

    max_seq_length = 1

    def __init__(self, rows, width, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.vectors = nn.Parameter(torch.randn(rows, width, generator=generator, dtype=torch.float64))
        self.tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
        )
        self.calls = 0

    def __getitem__(self, place):
        return self

    def forward(self, features):
        self.calls += 1
        return {**features, "sentence_embedding": self.vectors[features["input_ids"][:, 0]]}

    def get_embedding_dimension(self):
        return self.vectors.shape[1]


@pytest.fixture
def tables():
    """Columns -> the student's table and the guide's."""

    def build(columns):
        student, guide = Table(columns * B, D, 0), Table(columns * B, G, 1)
        with torch.no_grad():  # the guide knows positives, or it would keep next to nothing
            guide.vectors[B : 2 * B] += 2 * guide.vectors[:B]
        return student, guide

    return build


def features(columns):
    ids = torch.arange(columns * B).reshape(columns, B, 1)
    return [{"input_ids": column, "attention_mask": torch.ones_like(column)} for column in ids]


def theirs(loss, model, columns):
    """Their value and gradient of the table."""
    model.vectors.grad = None
    value = loss(features(columns), torch.zeros(B))
    value.backward()
    return value.detach(), model.vectors.grad.clone()


def ours(loss, model, pairing, plan_=None, budget=blocks.BUDGET):
    """Our value and gradient of the table."""
    query, docs = model.vectors[:B], model.vectors[B:]
    if plan_ is None:
        value = contrast(loss, query, docs, pairing, budget=budget)
    else:
        sides = Embeddings(query[None], (1,)), Embeddings(docs[None], (1,))
        value = Objective(loss, similarity_budget=budget)(*sides, pairing, plan_).total
    return value.detach(), torch.autograd.grad(value, model.vectors)[0]


def assert_equal(mine, expected):
    assert expected[1].abs().max() > 1e-4
    for one, other in zip(mine, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def everyone(columns):
    """All that the batch offers, each query with its own columns of documents."""
    owner = torch.arange(B).repeat(columns - 1)
    return fixed(torch.arange(B), torch.ones(B, len(owner), dtype=torch.bool), owner=owner)


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
def test_every_option_of_multiple_negatives_ranking(tables, directions, partition, hardness, columns):
    model, _ = tables(columns)
    strength = 0.0 if hardness is None else 3.0
    options = {
        "directions": directions,
        "partition_mode": partition,
        "hardness_mode": hardness,
        "hardness_strength": strength,
    }
    loss = infonce(directions, partition, hardness, strength)
    mine = ours(loss, model, everyone(columns), budget=FEWEST)
    assert_equal(mine, theirs(MultipleNegativesRankingLoss(model, **options), model, columns))
    cached = CachedMultipleNegativesRankingLoss(model, mini_batch_size=6, **options)
    assert_equal(mine, theirs(cached, model, columns))


def test_scale_and_dot_products(tables):
    model, _ = tables(3)
    their_loss = MultipleNegativesRankingLoss(model, scale=0.5, similarity_fct=dot_score)
    loss = InfoNCE(2.0, similarity="dot")
    assert_equal(ours(loss, model, everyone(3)), theirs(their_loss, model, 3))


MATRYOSHKA = plan.Dims(DIMS, WEIGHTS, num_layers=1, width=D)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize(
    ("directions", "partition", "hardness"),
    [
        (("query_to_doc",), "joint", None),
        (SUBSETS[-1], "joint", "hard_negatives"),
        (("query_to_doc", "doc_to_query"), "per_direction", "in_batch_negatives"),
    ],
)
def test_matryoshka_over_multiple_negatives_ranking(tables, directions, partition, hardness, cached):
    model, _ = tables(3)
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
    mine = ours(loss, model, everyone(3), MATRYOSHKA(0), budget=FEWEST)
    assert_equal(mine, theirs(MatryoshkaLoss(model, inner, DIMS, WEIGHTS), model, 3))


MARGINS = [("absolute", 0.0), ("absolute", 0.1), ("relative", 0.2)]


def guide_cosines(guide):
    """The guide's cosines of query_docs, query_queries and doc_docs."""
    with torch.no_grad():
        unit = F.normalize(guide.vectors, dim=-1)
    query, docs = unit[:B], unit[B:]
    return query @ docs.T, query @ query.T, docs[:B] @ docs.T


def gist_by_hand(guide, strategy, margin, diagonals=False):
    """The pairing of their rule, in our words; `diagonals` leaves a text to itself where the rule does."""
    asked, queries, positives = guide_cosines(guide)
    own = asked.diagonal()[:, None]
    threshold = own - (margin if strategy == "absolute" else own.abs() * margin)
    itself = torch.eye(B, dtype=torch.bool)
    outside = torch.zeros(B, asked.shape[1], dtype=torch.bool)
    outside[:, :B] = itself
    alone = torch.zeros_like(itself) if diagonals else itself
    return fixed(
        torch.arange(B),
        (asked <= threshold) | outside,
        query_queries=(queries <= threshold) & ~alone,
        doc_docs=(positives <= threshold) & ~(outside & (not diagonals)),
        owner=torch.arange(B).repeat(asked.shape[1] // B),
    )


def gist_by_rule(guide, strategy, margin):
    """The pairing as a run makes it, from the guide's vectors."""
    texts = torch.arange(len(guide.vectors))
    docs = texts[B:]
    links = Links(
        text_ids=texts,
        query=texts[:B],
        docs=docs,
        owner=docs % B,
        positive=torch.arange(B),
        known=texts[B : 2 * B],
        known_owner=torch.arange(B),
        task=torch.zeros(B, dtype=torch.int64),
        rows=torch.arange(B),
        scores=None,
    )
    unit = F.normalize(guide.vectors.detach(), dim=-1)
    return pair(links, rules=[Margin(margin, strategy=strategy)], guide=Guide(unit[:B], unit[B:]))


def gist(anchors=True, positives=True, temperature=0.01):
    return InfoNCE(
        temperature,
        blocks=["query_docs", *["query_queries"] * anchors, *["doc_docs"] * positives],
        doc_docs="positives" if positives else "others",
    )


@pytest.mark.parametrize("pairing", [gist_by_hand, gist_by_rule])
@pytest.mark.parametrize(("strategy", "margin"), MARGINS)
@pytest.mark.parametrize("columns", [2, 3])
@pytest.mark.parametrize(
    ("anchors", "positives"), [(True, True), (True, False), (False, True), (False, False)]
)
def test_gist(tables, pairing, strategy, margin, columns, anchors, positives):
    model, guide = tables(columns)
    options = {
        "margin_strategy": strategy,
        "margin": margin,
        "contrast_anchors": anchors,
        "contrast_positives": positives,
    }
    mine = ours(gist(anchors, positives), model, pairing(guide, strategy, margin), budget=FEWEST)
    assert_equal(mine, theirs(GISTEmbedLoss(model, guide, **options), model, columns))
    cached = CachedGISTEmbedLoss(model, guide, mini_batch_size=6, **options)
    assert_equal(mine, theirs(cached, model, columns))


@pytest.mark.parametrize("pairing", [gist_by_hand, gist_by_rule])
def test_gist_with_several_hard_negatives(tables, pairing):
    model, guide = tables(5)
    with pytest.raises(ValueError, match="Expected 2 or 3 embeddings, got 5"):
        theirs(GISTEmbedLoss(model, guide), model, 5)
    mine = ours(gist(), model, pairing(guide, "absolute", 0.05))
    assert_equal(mine, theirs(CachedGISTEmbedLoss(model, guide, margin=0.05, mini_batch_size=6), model, 5))


@pytest.mark.parametrize("kind", [GISTEmbedLoss, CachedGISTEmbedLoss])
def test_matryoshka_over_gist(tables, kind):
    model, guide = tables(3)
    their_loss = MatryoshkaLoss(model, kind(model, guide, temperature=0.05), DIMS, WEIGHTS)
    pairing = gist_by_rule(guide, "absolute", 0.0)
    assert_equal(ours(gist(temperature=0.05), model, pairing, MATRYOSHKA(0)), theirs(their_loss, model, 3))


def test_the_guide_is_read_once_whatever_the_dims(tables):
    model, guide = tables(3)
    theirs(MatryoshkaLoss(model, GISTEmbedLoss(model, guide), DIMS, WEIGHTS), model, 3)
    assert guide.calls == 2 * len(DIMS)  # queries, and both document columns together, at every dim
    pairing = gist_by_rule(guide, "absolute", 0.0)
    reads = []

    class Counting:
        needs_student = False

        def allowed(self, rows, names, student):
            reads.append(rows.tolist())
            return pairing.candidates.allowed(rows, names, student)

    ours(gist(), model, pairing._replace(candidates=Counting()), MATRYOSHKA(0), budget=FEWEST)
    assert [row for rows in reads for row in rows] == list(range(B))
    assert guide.calls == 2 * len(DIMS)


class Largest(TorchDispatchMode):
    """The elements of the largest tensor that any operation made."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for item in made if isinstance(made, tuple | list) else (made,):
            if isinstance(item, torch.Tensor):
                # a view of few numbers that repeats them is no memory
                self.elements = max(self.elements, item.untyped_storage().nbytes() // item.element_size())
        return made


def test_similarities_are_products_and_never_hold_every_coordinate(tables):
    model, guide = tables(3)
    with Largest() as largest:
        theirs(GISTEmbedLoss(model, guide), model, 3)
    assert largest.elements >= B * B * D
    pairing = gist_by_rule(guide, "absolute", 0.0)
    with Largest() as largest:
        ours(gist(), model, pairing, MATRYOSHKA(0))
    assert largest.elements <= B * (B + B + B + 2 * B)  # one row of all blocks side by side


def test_a_tolerant_margin_makes_no_text_its_own_negative(tables):
    model, guide = tables(2)
    margin = -0.1  # Qwen3-Embedding's tolerance
    asked, queries, _ = guide_cosines(guide)
    victims = int((queries.diagonal() <= asked.diagonal() - margin).sum())
    assert victims > 0
    expected = theirs(GISTEmbedLoss(model, guide, margin=margin), model, 2)
    assert_equal(ours(gist(), model, gist_by_hand(guide, "absolute", margin, diagonals=True)), expected)
    pairing = gist_by_rule(guide, "absolute", margin)
    decided = whole(pairing, gist().blocks).blocks
    assert not decided.query_queries.diagonal().any()
    assert not decided.doc_docs.diagonal().any()
    mine = ours(gist(), model, pairing)
    assert_equal(mine, ours(gist(), model, gist_by_hand(guide, "absolute", margin)))
    assert mine[0] < expected[0] - 1e-3


def test_dot_products_keep_their_norms_under_matryoshka(tables):
    model, _ = tables(2)
    with_dot, with_cosine = (
        theirs(
            MatryoshkaLoss(model, MultipleNegativesRankingLoss(model, 1.0, similarity), DIMS, WEIGHTS),
            model,
            2,
        )
        for similarity in (dot_score, cos_sim)
    )
    torch.testing.assert_close(with_dot[0], with_cosine[0])
    mine = ours(InfoNCE(1.0, similarity="dot"), model, everyone(2), MATRYOSHKA(0))
    query, docs = model.vectors[:B], model.vectors[B:]
    expected = sum(
        weight * F.cross_entropy(query[:, :dim] @ docs[:, :dim].T, torch.arange(B))
        for dim, weight in zip(DIMS, WEIGHTS, strict=True)
    )
    assert_equal(mine, (expected.detach(), torch.autograd.grad(expected, model.vectors)[0]))
    assert abs(mine[0] - with_dot[0]) > 0.1


def test_one_loss_serves_many_objectives(tables):
    model, _ = tables(2)
    cached = CachedMultipleNegativesRankingLoss(model, mini_batch_size=6)
    first = theirs(MatryoshkaLoss(model, cached, DIMS, WEIGHTS), model, 2)
    with pytest.raises(ValueError, match="cannot be greater than the model's embedding dimension"):
        theirs(MatryoshkaLoss(model, cached, DIMS, WEIGHTS), model, 2)
    loss = InfoNCE()
    assert_equal(ours(loss, model, everyone(2), MATRYOSHKA(0)), first)
    assert_equal(ours(loss, model, everyone(2), MATRYOSHKA(0), budget=FEWEST), first)


def test_chunks_train_several_layers(tables):
    model, _ = tables(2)
    chosen = plan.Grid(layers=[1, 2], dims=[4, D], num_layers=2, width=D)(0)
    layers = torch.stack([model.vectors, model.vectors.flip(1).cos()])
    sides = Embeddings(layers[:, :B], (1, 2)), Embeddings(layers[:, B:], (1, 2))
    loss = infonce(SUBSETS[-1], "joint", "in_batch_negatives", 2.0)
    total = Objective(loss, similarity_budget=FEWEST)(*sides, everyone(2), chosen).total
    expected = sum(
        weight * contrast(loss, sides[0].raw(sub), sides[1].raw(sub), everyone(2)) for sub, weight in chosen
    )
    gradients = [
        torch.autograd.grad(value, model.vectors, retain_graph=True)[0] for value in (total, expected)
    ]
    assert_equal((total.detach(), gradients[0]), (expected.detach(), gradients[1]))


def test_ranks_sum_to_the_loss_of_the_whole_batch(tables):
    model, guide = tables(3)
    pairing, loss = gist_by_rule(guide, "absolute", 0.05), gist()
    sides = Embeddings(model.vectors[None, :B], (1,)), Embeddings(model.vectors[None, B:], (1,))

    def share(rows):
        factor = torch.zeros(B, dtype=torch.float64)
        factor[rows] = 1 / B
        step = Step(pairing, {SubModel(1, D): 1.0}, [RowTerm(loss, 1.0, factor)], None, blocks.BUDGET)
        return blocks.evaluate(*sides, step).total

    total = share(slice(0, 7)) + share(slice(7, B))
    gradient = torch.autograd.grad(total, model.vectors)[0]
    assert_equal((total.detach(), gradient), ours(loss, model, pairing))
