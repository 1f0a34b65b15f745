"""Each rule beside its formula, and what rules remove from the blocks of a batch."""

import pytest
import torch
import torch.nn.functional as F
from fixed_pairing import columns_links
from golden import golden
from pairs_of import pair, whole
from random_batches import random_links
from sentence_transformers.sentence_transformer.losses import GISTEmbedLoss
from torch import nn
from transformers import AutoTokenizer

from embedtrain.content_ids import content_id
from embedtrain.objective.schedule import Linear
from embedtrain.objective.similarity.negatives import Negatives
from embedtrain.rules import Abs, MarginPos, MinScore, PercPos, Seen, TopK
from embedtrain.types import Blocks, Guide, InputError, Links

EVERY = ("query_docs", "query_queries", "doc_queries", "doc_docs")


FORMULAS = [  # rule, whether a candidate of score s and 0-based rank r stays beside a positive of score t
    (PercPos(0.95), lambda s, t, r: s < (0.95 * t if t >= 0 else 1.05 * t)),
    (PercPos(1.0), lambda s, t, r: s < t),
    (MarginPos(0.05), lambda s, t, r: s < t - 0.05),
    (MarginPos(-0.1), lambda s, t, r: s < t + 0.1),
    (Abs(0.7), lambda s, t, r: s < 0.7),
    (MinScore(0.2), lambda s, t, r: s >= 0.2),
    (TopK(2), lambda s, t, r: r >= 2),
]


@pytest.mark.parametrize("mining", [True, False], ids=["mining", "batch"])
@pytest.mark.parametrize(("rule", "stays"), FORMULAS, ids=lambda part: getattr(part, "name", ""))
def test_a_rule_is_its_formula(rule, stays, mining):
    draw = torch.Generator().manual_seed(0)
    scores = (2 * torch.rand(6, 9, generator=draw, dtype=torch.float64) - 1).sort(descending=True).values
    positive = 2 * torch.rand(6, generator=draw, dtype=torch.float64) - 1
    ranks = torch.arange(9).expand(6, 9)
    seen = Seen(scores, positive, torch.ones(6, 9, dtype=torch.bool))
    removed = rule.removes(seen._replace(ranks=ranks, tie=0.0) if mining else seen)
    expected = [
        [not stays(float(scores[row, c]), float(positive[row]), c) for c in range(9)] for row in range(6)
    ]
    assert removed.tolist() == expected
    assert removed.any()
    assert not removed.all()


def seen_at(scores, positive):
    both = torch.tensor([scores], dtype=torch.float64), torch.tensor([positive], dtype=torch.float64)
    return Seen(*both, torch.ones(1, len(scores), dtype=torch.bool), tie=0.0)


def test_a_score_at_the_bound_goes():
    assert PercPos(0.95).removes(seen_at([0.76, 0.75], 0.8)).tolist() == [[True, False]]
    assert Abs(0.76).removes(seen_at([0.76, 0.75], 0.8)).tolist() == [[True, False]]


def test_below_zero_no_candidate_above_the_positive_stays():
    assert PercPos(0.95).removes(seen_at([-0.39, -0.41, -0.43], -0.4)).tolist() == [[True, True, False]]


def unit(rows: torch.Tensor) -> torch.Tensor:
    return F.normalize(rows, dim=-1)


def vectors(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_guide(links: Links, seed: int = 0, width: int = 3) -> Guide:
    """One vector a text of the batch: equal texts have equal vectors."""
    texts = unit(vectors(seed, len(links.content_ids), width))
    first = {int(number): place for place, number in reversed(list(enumerate(links.content_ids)))}
    texts = texts[[first[int(number)] for number in links.content_ids]]
    return Guide(texts[links.query], texts[links.docs])


def student_blocks(guide: Guide, target: torch.Tensor) -> Blocks:
    """The same cosines as a student's, for rules that compare by it."""
    docs = guide.docs[target]
    return Blocks(
        guide.query @ guide.docs.T, guide.query @ guide.query.T, docs @ guide.query.T, docs @ guide.docs.T
    )


@pytest.mark.parametrize("case", ["gistembed", "gistembed_b3"])
def test_the_masks_of_gistembed(case):
    arrays, _ = golden(case)
    count = len(arrays["q"])
    guide = Guide(unit(arrays["gq"]), unit(torch.cat([arrays["gp"], arrays["gn"]])))
    links = columns_links(count, 2)
    for rules, expected in [((MarginPos(),), "kept_guided"), ((), "kept_unguided")]:
        blocks = whole(pair(links, rules=rules, guide=guide), EVERY).blocks
        kept = torch.cat([blocks.query_docs, blocks.query_queries, blocks.doc_docs[:, :count]], dim=1)
        assert torch.equal(kept, arrays[expected])
        assert not kept.all()


class Columns(nn.Module):
    """Stands in for a sentence-transformers model: each column brings its vectors along."""

    max_seq_length = 8

    def __init__(self, tokenizer, name):
        super().__init__()
        self.tokenizer, self.name = tokenizer, name

    def forward(self, column):
        return {"sentence_embedding": column[self.name]}


class Kept(nn.Module):
    """Stands in for the cross-entropy: notes which logits are left."""

    def forward(self, scores, labels):
        self.mask = ~scores.isneginf()
        return scores.sum()


@pytest.mark.parametrize("strategy", ["absolute", "relative"])
@pytest.mark.parametrize("margin", [0.0, 0.2, -0.1])
def test_the_masks_of_sentence_transformers_but_its_diagonals(tiny_bert, strategy, margin):
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    models = Columns(tokenizer, "student"), Columns(tokenizer, "guide")
    theirs = GISTEmbedLoss(*models, margin_strategy=strategy, margin=margin)
    theirs.cross_entropy_loss = Kept()
    query, positive, negative = (vectors(place, 16, 4) for place in range(3))
    columns = [{"student": part, "guide": part} for part in (query, 0.6 * query + positive, negative)]
    theirs(columns, None)

    guide = Guide(unit(query), unit(torch.cat([columns[1]["guide"], negative])))
    rule = MarginPos(margin) if strategy == "absolute" else PercPos(1 - margin)
    blocks = whole(pair(columns_links(16, 2), rules=[rule], guide=guide), EVERY).blocks
    positives, negatives = blocks.query_docs.split(16, dim=1)
    ours = torch.stack([positives, blocks.query_queries, blocks.doc_docs[:, :16], negatives])
    oracle = torch.stack(theirs.cross_entropy_loss.mask.split(16, dim=1))
    diagonal = torch.eye(16, dtype=torch.bool)
    assert torch.equal(ours & ~diagonal, oracle & ~diagonal)
    assert (ours & ~diagonal).any()
    assert (~ours & ~diagonal).any()
    assert not ours[1:3][:, diagonal].any()
    if margin < 0:  # there a text becomes its own negative
        assert oracle[1:3][:, diagonal].any()


def stays(rule, s: float, t: float) -> bool:
    """A bound spelt out."""
    if isinstance(rule, Abs):
        return s < rule.most
    return s < (t - rule.margin if isinstance(rule, MarginPos) else t - (1 - rule.perc_pos) * abs(t))


def slow_rules(rules: list, blocks: Blocks, similar: Blocks, target: list[int]) -> tuple[list, dict]:
    """Rules on lists of columns, one candidate at a time; removed documents of query_docs."""
    left = [block.tolist() for block in blocks]
    removed = {rule.name: [0] * len(target) for rule in rules}
    for rule in rules:
        for place, (name, block) in enumerate(zip(EVERY, left, strict=True)):
            for i, row in enumerate(block if name in rule.blocks else []):
                t = float(similar.query_docs[i, target[i]])
                s = similar[place][i].tolist()
                spared = {0: target[i], 2: i}.get(place)
                open_ = [c for c, allowed in enumerate(row) if allowed and c != spared]
                if isinstance(rule, TopK):
                    gone = sorted(open_, key=lambda c, s=s: -s[c])[: rule.k]
                else:
                    gone = [c for c in open_ if not stays(rule, s[c], t)]
                for c in gone:
                    row[c] = False
                removed[rule.name][i] += len(gone) if place == 0 else 0
    return left, removed


@pytest.mark.parametrize("by", ["guide", "student"])
def test_rules_in_order_equal_their_definitions_spelt_out(by):
    links = columns_links(12, 3)
    totals = torch.zeros(4, dtype=torch.long)
    rules = [
        MarginPos(0.1, by=by),
        TopK(2, by=by, blocks=("query_docs", "doc_queries")),
        Abs(-0.2, by=by, blocks=("query_docs", "doc_docs")),
        PercPos(0.7, by=by, name="relative"),
    ]
    for order in (rules, rules[::-1]):
        guide = random_guide(links)
        similar = student_blocks(guide, links.positive)
        pairing = pair(links, rules=order, guide=guide if by == "guide" else None)
        assert pairing.candidates.needs_student is (by == "student")
        found = whole(pairing, EVERY, similar if by == "student" else None)
        before = whole(pair(links), EVERY)
        left, removed = slow_rules(order, before.blocks, similar, links.positive.tolist())
        assert [block.tolist() for block in found.blocks] == left
        assert {name: counts.tolist() for name, counts in found.removed.items()} == removed
        assert torch.equal(found.considered, before.considered)
        gone = sum(found.removed.values())
        assert torch.equal(found.blocks.query_docs.sum(1) - 1, found.considered - gone)
        totals += torch.stack([found.removed[rule.name].sum() for rule in rules])
    assert totals.min() > 0  # every rule had something to do


def test_positives_survive_every_rule():
    strictest = [MarginPos(5.0), Abs(-2.0), TopK(1000)]
    for seed in range(10):
        links = random_links(seed)
        found = whole(pair(links, rules=strictest, guide=random_guide(links, seed)), EVERY).blocks
        everyone = torch.arange(len(links.query))
        expected = torch.zeros_like(found.query_docs)
        expected[everyone, links.positive] = True
        assert torch.equal(found.query_docs, expected)
        assert torch.equal(found.doc_queries, torch.eye(len(everyone), dtype=torch.bool))
        assert not found.query_queries.any()
        assert not found.doc_docs.any()


def test_any_rows_are_those_of_the_whole():
    rules = [MarginPos(-0.1), TopK(1)]
    for seed in range(10):
        links = random_links(seed, queries=9)
        pairing = pair(links, rules=rules, guide=random_guide(links, seed))
        rows = torch.tensor([4, 1, 8])
        some, everything = pairing.candidates.allowed(rows, EVERY, None), whole(pairing, EVERY)
        for mine, all_rows in zip(some.blocks, everything.blocks, strict=True):
            assert torch.equal(mine, all_rows[rows])
        for name in ("margin_pos", "top_k"):
            assert torch.equal(some.removed[name], everything.removed[name][rows])


def test_permuting_documents_permutes_what_is_removed():
    links = random_links(5, queries=9)
    guide = random_guide(links, 5)
    order = torch.randperm(len(links.docs), generator=torch.Generator().manual_seed(0))
    moved = links._replace(
        docs=links.docs[order], owner=links.owner[order], positive=order.argsort()[links.positive]
    )
    rules = [MarginPos(), TopK(2)]
    before = whole(pair(links, rules=rules, guide=guide), EVERY)
    after = whole(pair(moved, rules=rules, guide=Guide(guide.query, guide.docs[order])), EVERY)
    assert torch.equal(after.blocks.query_docs, before.blocks.query_docs[:, order])
    assert torch.equal(after.blocks.doc_docs, before.blocks.doc_docs[:, order])
    assert torch.equal(after.blocks.doc_queries, before.blocks.doc_queries)
    for name, counts in before.removed.items():
        assert torch.equal(after.removed[name], counts)
        assert counts.sum() > 0


def test_a_text_the_guide_cannot_tell_from_the_positive_is_removed():
    links = columns_links(3, 2)
    docs = unit(torch.randn(6, 5, generator=torch.Generator().manual_seed(0)))
    docs[4] = docs[0] * (1 + 1e-7)  # another text, the same vector but for rounding
    guide = Guide(unit(torch.rand(3, 5, generator=torch.Generator().manual_seed(1))), docs)
    assert not whole(pair(links, rules=[MarginPos()], guide=guide)).blocks.query_docs[0, 4]
    assert whole(pair(links, rules=[MarginPos(-0.01)], guide=guide)).blocks.query_docs[0, 4]


def test_ties_with_the_kth_go_together():
    links = columns_links(1, 4)
    docs = unit(torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.1], [1.0, 3.0]]))
    guide = Guide(torch.tensor([[1.0, 0.0]]), docs)
    found = whole(pair(links, rules=[TopK(1)], guide=guide))
    assert found.blocks.query_docs.int().tolist() == [[1, 0, 0, 1]]
    assert found.removed["top_k"].tolist() == [2]


def test_a_margin_may_follow_a_schedule():
    links = columns_links(6, 2)
    guide, rule = random_guide(links), MarginPos(Linear(-2.0, 2.0, steps=10))
    allowed = [whole(pair(links, step=step, rules=[rule], guide=guide)) for step in (0, 5, 10)]
    removed = [int(one.removed["margin_pos"].sum()) for one in allowed]
    assert removed[0] == 0 < removed[1] < removed[2] == 6 * 11
    fixed = whole(pair(links, rules=[MarginPos(0.0)], guide=guide))
    assert torch.equal(allowed[1].blocks.query_docs, fixed.blocks.query_docs)


def test_rules_act_in_their_blocks():
    links = columns_links(6, 2)
    guide = random_guide(links)
    plain = whole(pair(links), EVERY).blocks
    for place, name in enumerate(EVERY):
        found = whole(pair(links, rules=[MarginPos(0.2, blocks=[name])], guide=guide), EVERY)
        for other, (mine, before) in enumerate(zip(found.blocks, plain, strict=True)):
            assert torch.equal(mine, before) == (other != place)
        assert bool(found.removed["margin_pos"].any()) == (name == "query_docs")


def test_a_rule_without_its_scorer_says_what_to_do():
    links = columns_links(2, 1)
    with pytest.raises(InputError, match="rule margin_pos compares by a guide and there is none: choose"):
        pair(links, rules=[MarginPos()])
    needing = pair(links, rules=[MarginPos(by="student")])
    with pytest.raises(ValueError, match="got no doc_docs similarities"):
        whole(needing, ("doc_docs",), Blocks(torch.zeros(2, 2)))


def test_negatives_hand_their_settings_to_the_pairing():
    links = columns_links(4, 2)._replace(task=torch.tensor([content_id("nli"), content_id("qa")] * 2))
    guide = random_guide(links)
    negatives = Negatives(
        scope="own", rules=[MarginPos(Linear(0.0, 1.0, steps=10))], datasets={"nli": {"in_batch": False}}
    )
    assert (negatives.tasks, negatives.needs) == (("nli",), frozenset({"guide"}))
    assert Negatives(rules=[MarginPos(by="student")]).needs == frozenset()
    found = whole(negatives(links, 5, guide), EVERY)
    by_hand = pair(
        links,
        step=5,
        scope="own",
        rules=[MarginPos(0.5)],
        datasets={"nli": negatives.sharing._replace(in_batch=False)},
        guide=guide,
    )
    for mine, expected in zip(found.blocks, whole(by_hand, EVERY).blocks, strict=True):
        assert torch.equal(mine, expected)
    plain = whole(Negatives()(links, 5, None), EVERY)
    assert not torch.equal(found.blocks.query_docs, plain.blocks.query_docs)


def test_data_sets_that_the_data_does_not_have_are_named():
    negatives = Negatives(datasets={"nli": {"in_batch": False}, "qa": {"scope": "own"}})
    negatives.check_tasks(["qa", "nli", "more"])
    with pytest.raises(
        InputError, match=r"negatives\.datasets names 'nli', which the data does not have; it has 'qa'"
    ):
        negatives.check_tasks(["qa"])
