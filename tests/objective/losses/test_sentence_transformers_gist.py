"""GISTEmbed against sentence-transformers' own on equal vectors, and what goes wrong there alone.

- Matryoshka over GIST runs the guide once for every dim, and every such run builds B x B x D numbers.
- A negative margin lets every text be its own negative.
- GIST takes one hard negative at most; CachedGIST takes any number.
- Gathering leaves GIST's queries on their rank: what ranks sum to is not the loss of the whole batch.
"""

import pytest
import torch
import torch.nn.functional as F
from fixed_pairing import columns_links, fixed
from pairs_of import pair, whole
from sentence_transformers.sentence_transformer.losses import (
    CachedGISTEmbedLoss,
    GISTEmbedLoss,
    MatryoshkaLoss,
)
from torch.utils._python_dispatch import TorchDispatchMode
from vector_tables import (
    DIMS,
    FEWEST,
    MATRYOSHKA,
    WEIGHTS,
    B,
    D,
    assert_equal,
    ours,
    sides,
    theirs,
    vector_tables,
)  # fmt: skip

from embedtrain.objective.losses.contrastive import InfoNCE
from embedtrain.objective.similarity import blocks
from embedtrain.objective.similarity.row_terms import RowTerm, Step
from embedtrain.rules import MarginPos, PercPos
from embedtrain.types import Guide, SubModel

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
    links = columns_links(B, len(guide.vectors) // B - 1)
    unit = F.normalize(guide.vectors.detach(), dim=-1)
    rule = MarginPos(margin) if strategy == "absolute" else PercPos(1 - margin)
    return pair(links, rules=[rule], guide=Guide(unit[:B], unit[B:]))


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
def test_gist(pairing, strategy, margin, columns, anchors, positives):
    model, guide = vector_tables(columns)
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
def test_gist_with_several_hard_negatives(pairing):
    model, guide = vector_tables(5)
    with pytest.raises(ValueError, match="Expected 2 or 3 embeddings, got 5"):
        theirs(GISTEmbedLoss(model, guide), model, 5)
    mine = ours(gist(), model, pairing(guide, "absolute", 0.05))
    assert_equal(mine, theirs(CachedGISTEmbedLoss(model, guide, margin=0.05, mini_batch_size=6), model, 5))


@pytest.mark.parametrize("kind", [GISTEmbedLoss, CachedGISTEmbedLoss])
def test_matryoshka_over_gist(kind):
    model, guide = vector_tables(3)
    their_loss = MatryoshkaLoss(model, kind(model, guide, temperature=0.05), DIMS, WEIGHTS)
    pairing = gist_by_rule(guide, "absolute", 0.0)
    assert_equal(ours(gist(temperature=0.05), model, pairing, MATRYOSHKA(0)), theirs(their_loss, model, 3))


def test_the_guide_is_read_once_whatever_the_dims():
    model, guide = vector_tables(3)
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


def test_similarities_are_products_and_never_hold_every_coordinate():
    model, guide = vector_tables(3)
    with Largest() as largest:
        theirs(GISTEmbedLoss(model, guide), model, 3)
    assert largest.elements >= B * B * D
    pairing = gist_by_rule(guide, "absolute", 0.0)
    with Largest() as largest:
        ours(gist(), model, pairing, MATRYOSHKA(0))
    assert largest.elements <= B * (B + B + B + 2 * B)  # one row of all blocks side by side


def test_a_tolerant_margin_makes_no_text_its_own_negative():
    model, guide = vector_tables(2)
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


def test_ranks_sum_to_the_loss_of_the_whole_batch():
    model, guide = vector_tables(3)
    pairing, loss = gist_by_rule(guide, "absolute", 0.05), gist()

    def share(rows):
        factor = torch.zeros(B, dtype=torch.float64)
        factor[rows] = 1 / B
        step = Step(pairing, {SubModel(1, D): 1.0}, [RowTerm(loss, 1.0, factor)], None, None)
        return blocks.evaluate(*sides(model), step).total

    total = share(slice(0, 7)) + share(slice(7, B))
    gradient = torch.autograd.grad(total, model.vectors)[0]
    assert_equal((total.detach(), gradient), ours(loss, model, pairing))
