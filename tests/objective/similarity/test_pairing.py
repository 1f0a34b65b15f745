import pytest
import torch
from fixed_pairing import fixed
from pairs_of import pair, whole
from random_batches import random_links

from embedtrain.content_ids import content_id
from embedtrain.objective.similarity.pairing import Queued, Sharing
from embedtrain.types import Blocks, InputError, Links

EVERY = ("query_docs", "query_queries", "doc_queries", "doc_docs")
NONE = Queued(torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long), torch.zeros(0).bool())


def slow_allowed(links: Links, scope: str = "all", in_batch: bool = True, queued: Queued = NONE) -> Blocks:
    """The definitions of `pair`, one couple at a time."""
    ids, task = links.content_ids.tolist(), links.task.tolist()
    queries = range(len(links.query))
    query_id = [ids[row] for row in links.query.tolist()]
    known = list(zip(links.known.tolist(), links.known_owner.tolist(), strict=True))

    def related(i: int) -> set[int]:
        twins = [j for j in queries if query_id[j] == query_id[i] and task[j] == task[i]]
        return {query_id[i]} | {text for text, owner in known if owner in twins}

    targets, owners = links.positive.tolist(), links.owner.tolist()
    docs = [
        (ids[row], task[owner], owner, place not in targets)
        for place, (row, owner) in enumerate(zip(links.docs.tolist(), owners, strict=True))
    ]
    docs += [(*fact, -1, hard) for *fact, hard in zip(*(part.tolist() for part in queued), strict=True)]

    def doc_fits(i: int, c: int) -> bool:
        text, doc_task, owner, hard = docs[c]
        shared = owner == i or (in_batch and (scope == "all" or not hard))
        return doc_task == task[i] and text not in related(i) and shared

    def may_meet(i: int, j: int) -> bool:
        return task[i] == task[j] and in_batch and i != j

    columns = range(len(docs))
    return Blocks(
        query_docs=torch.tensor([[c == targets[i] or doc_fits(i, c) for c in columns] for i in queries]),
        query_queries=torch.tensor(
            [[may_meet(i, j) and not related(i) & related(j) for j in queries] for i in queries]
        ),
        doc_queries=torch.tensor(
            [
                [i == j or (may_meet(i, j) and docs[targets[i]][0] not in related(j)) for j in queries]
                for i in queries
            ]
        ),
        doc_docs=torch.tensor([[c != targets[i] and doc_fits(i, c) for c in columns] for i in queries]),
    )


def random_queue(seed: int, links: Links) -> Queued:
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randint(high, (5,), generator=generator) for high in (len(links.content_ids), 2, 2)]
    return Queued(links.content_ids[drawn[0]], drawn[1], drawn[2].bool())


@pytest.mark.parametrize("in_batch", [True, False])
@pytest.mark.parametrize("scope", ["all", "own"])
def test_every_block_equals_its_definition_spelt_out(scope, in_batch):
    seen = torch.zeros(4, 2, dtype=torch.long)
    for seed in range(60):
        links = random_links(seed, queries=1 + seed % 9)
        queued = random_queue(seed, links) if seed % 3 == 0 else NONE
        pairing = pair(links, scope=scope, in_batch=in_batch, queued=queued)
        found = whole(pairing, EVERY)
        expected = slow_allowed(links, scope, in_batch, queued)
        for place, (name, mine, theirs) in enumerate(zip(EVERY, found.blocks, expected, strict=True)):
            assert torch.equal(mine, theirs), name
            seen[place] += torch.tensor([mine.sum(), (~mine).sum()])
        assert torch.equal(found.considered, expected.query_docs.sum(1) - 1)
        assert found.removed == {}
        assert torch.equal(pairing.target, links.positive)
        assert torch.equal(pairing.owner, torch.cat([links.owner, torch.full_like(queued.task, -1)]))
    assert seen[[0, 3]].min() > (400 if in_batch else 80)  # the batches hold plenty of both kinds
    assert seen[1:3].max(1).values.min() > 300
    assert seen[1:3, 0].min() > (200 if in_batch else -1)


def test_any_rows_in_any_order_are_those_of_the_whole():
    generator = torch.Generator().manual_seed(1)
    for seed in range(30):
        links = random_links(seed, queries=9)
        pairing = pair(links, scope=("all", "own")[seed % 2])
        rows = torch.randint(9, (4,), generator=generator)  # with repeats
        some, everything = pairing.candidates.allowed(rows, EVERY, None), whole(pairing, EVERY)
        for mine, all_rows in zip(some.blocks, everything.blocks, strict=True):
            assert torch.equal(mine, all_rows[rows])
        assert torch.equal(some.considered, everything.considered[rows])


def test_only_the_named_blocks_are_worked_out():
    pairing = pair(random_links(0))
    assert whole(pairing).blocks[1:] == (None, None, None)
    named = whole(pairing, ("doc_docs",)).blocks
    assert named.query_docs is not None
    assert named.doc_docs is not None
    assert named.query_queries is named.doc_queries is None


def test_diagonals_are_as_promised_whatever_the_texts():
    for seed in range(20):
        links = random_links(seed)
        # The target is also the query's own text: as in SimCSE, where a text is its own positive.
        links = links._replace(query=links.docs[links.positive])
        blocks = whole(pair(links, scope="own"), EVERY).blocks
        everyone = torch.arange(len(links.query))
        assert blocks.query_docs[everyone, links.positive].all()
        assert blocks.doc_queries.diagonal().all()
        assert not blocks.query_queries.diagonal().any()
        assert not blocks.doc_docs[everyone, links.positive].any()


def test_queries_are_negatives_of_each_other_or_neither_is():
    for seed in range(30):
        block = whole(pair(random_links(seed, queries=9)), EVERY).blocks.query_queries
        assert torch.equal(block, block.T)


def test_permuting_documents_permutes_columns():
    links = random_links(3)
    order = torch.randperm(len(links.docs), generator=torch.Generator().manual_seed(0))
    moved = links._replace(
        docs=links.docs[order], owner=links.owner[order], positive=order.argsort()[links.positive]
    )
    for scope in ("all", "own"):
        before, after = pair(links, scope=scope), pair(moved, scope=scope)
        old, new = whole(before, EVERY).blocks, whole(after, EVERY).blocks
        assert torch.equal(new.query_docs, old.query_docs[:, order])
        assert torch.equal(new.doc_docs, old.doc_docs[:, order])
        assert torch.equal(new.query_queries, old.query_queries)
        assert torch.equal(new.doc_queries, old.doc_queries)
        assert torch.equal(order[after.target], before.target)


def plain_links(**changes: torch.Tensor) -> Links:
    """Two queries (texts 10, 20) with positives 11, 21 and one hard negative each, 12 and 22."""
    links = Links(
        content_ids=torch.tensor([10, 20, 11, 12, 21, 22]),
        query=torch.tensor([0, 1]),
        docs=torch.tensor([2, 3, 4, 5]),
        owner=torch.tensor([0, 0, 1, 1]),
        positive=torch.tensor([0, 2]),
        known=torch.tensor([11, 21]),
        known_owner=torch.tensor([0, 1]),
        task=torch.tensor([0, 0]),
        rows=torch.tensor([0, 1]),
        scores=None,
    )
    return links._replace(**changes)


def query_docs(links: Links, **settings: object) -> list[list[int]]:
    return whole(pair(links, **settings)).blocks.query_docs.int().tolist()


def query_queries(links: Links) -> list[list[int]]:
    return whole(pair(links), EVERY).blocks.query_queries.int().tolist()


def test_everything_is_a_negative_where_nothing_clashes():
    blocks = whole(pair(plain_links()), EVERY).blocks
    assert blocks.query_docs.all()
    assert blocks.doc_queries.all()
    assert blocks.query_queries.int().tolist() == [[0, 1], [1, 0]]
    assert blocks.doc_docs.int().tolist() == [[0, 1, 1, 1], [1, 1, 0, 1]]


def test_what_the_batch_carries_reaches_the_pairing():
    links = plain_links(scores=torch.tensor([0.5, 1.0]), teacher=torch.tensor([1.0, 2.0, 3.0, 4.0]))
    queued = Queued(torch.tensor([30]), torch.tensor([0]), torch.tensor([False]))
    pairing = pair(links, step=7, queued=queued)
    assert (pairing.step, pairing.scores) == (7, links.scores)
    assert torch.equal(pairing.teacher[:4], links.teacher)
    assert pairing.teacher[4].isnan()
    assert torch.equal(pairing.task, links.task)
    assert pair(plain_links()).teacher is None


def test_own_leaves_out_the_hard_negatives_of_others_and_keeps_their_positives():
    assert query_docs(plain_links(), scope="own") == [[1, 1, 1, 0], [1, 0, 1, 1]]


def test_without_in_batch_negatives_a_query_keeps_its_own_documents_alone():
    blocks = whole(pair(plain_links(), in_batch=False), EVERY).blocks
    assert blocks.query_docs.int().tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]]
    assert blocks.doc_docs.int().tolist() == [[0, 1, 0, 0], [0, 0, 0, 1]]
    assert blocks.doc_queries.int().tolist() == [[1, 0], [0, 1]]
    assert not blocks.query_queries.any()


def test_a_data_set_may_share_otherwise_than_the_rest():
    tasks = [content_id("nli"), content_id("other")]
    four = Links(
        content_ids=torch.arange(12),
        query=torch.arange(4),
        docs=torch.arange(4, 12),
        owner=torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]),
        positive=torch.tensor([0, 2, 4, 6]),
        known=torch.tensor([4, 6, 8, 10]),
        known_owner=torch.arange(4),
        task=torch.tensor([tasks[0], tasks[0], tasks[1], tasks[1]]),
        rows=torch.arange(4),
        scores=None,
    )
    found = query_docs(four, datasets={"nli": Sharing(in_batch=False), "absent": Sharing("own")})
    assert found == [
        [1, 1, 0, 0, 0, 0, 0, 0],
        [0, 0, 1, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 1, 1, 1],
        [0, 0, 0, 0, 1, 1, 1, 1],
    ]
    one_own = [1, 1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 0]
    assert query_docs(four, scope="own", datasets={"nli": Sharing("all")})[::2] == [*one_own]
    assert query_docs(four, datasets={"other": Sharing("own")})[::2] == [*one_own]


def test_a_labelled_positive_that_is_not_the_target_is_no_negative():
    links = plain_links(known=torch.tensor([11, 21, 22]), known_owner=torch.tensor([0, 1, 0]))
    assert query_docs(links) == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert whole(pair(links), EVERY).blocks.doc_docs.int().tolist() == [[0, 1, 1, 0], [1, 1, 0, 1]]


def test_queries_of_equal_text_share_their_labels():
    links = plain_links(query=torch.tensor([0, 0]))
    assert query_docs(links) == [[1, 1, 0, 1], [0, 1, 1, 1]]
    assert query_queries(links) == [[0, 0], [0, 0]]
    other_task = links._replace(task=torch.tensor([0, 1]))
    assert query_docs(other_task) == [[1, 1, 0, 0], [0, 0, 1, 1]]


@pytest.mark.parametrize(
    ("known", "owner", "queries", "doc_queries"),
    [
        ([11, 99, 21, 99], [0, 0, 1, 1], 0, [[1, 1], [1, 1]]),  # a positive in common, used by neither
        ([11, 20, 21], [0, 0, 1], 0, [[1, 1], [1, 1]]),  # a query is the other's positive
        ([11, 21, 21], [0, 1, 0], 0, [[1, 1], [0, 1]]),  # the target of one is relevant to the other
    ],
)
def test_queries_that_share_what_is_relevant_are_no_negatives(known, owner, queries, doc_queries):
    links = plain_links(known=torch.tensor(known), known_owner=torch.tensor(owner))
    blocks = whole(pair(links), EVERY).blocks
    assert blocks.query_queries.int().tolist() == [[0, queries], [queries, 0]]
    assert blocks.doc_queries.int().tolist() == doc_queries
    assert torch.equal(blocks.doc_queries, blocks.query_docs[:, links.positive].T)


def test_a_second_copy_of_the_target_is_no_negative():
    links = plain_links(content_ids=torch.tensor([10, 20, 11, 11, 21, 22]))
    assert query_docs(links)[0] == [1, 0, 1, 1]
    assert whole(pair(links), EVERY).blocks.doc_docs[0].int().tolist() == [0, 0, 1, 1]


def test_settings_that_are_none_of_the_choices_are_named():
    with pytest.raises(InputError, match='scope must be "all" or "own", got \'shared\''):
        pair(plain_links(), scope="shared")
    with pytest.raises(InputError, match=r"in_batch must be true or false, got 0\.5"):
        pair(plain_links(), in_batch=0.5)


def test_fixed_tables_are_given_back_by_rows():
    generator = torch.Generator().manual_seed(0)
    target = torch.tensor([2, 0, 2])
    allowed = torch.rand(3, 5, generator=generator) < 0.6
    allowed[torch.arange(3), target] = True
    given = torch.rand(3, 3, generator=generator) < 0.5
    pairing = fixed(target, allowed, query_queries=given, step=4)
    assert pairing.step == 4
    assert pairing.owner.tolist() == [1, -1, 0, -1, -1]
    rows = torch.tensor([2, 0])
    found = pairing.candidates.allowed(rows, EVERY, None)
    assert torch.equal(found.blocks.query_docs, allowed[rows])
    assert torch.equal(found.blocks.query_queries, given[rows])
    assert torch.equal(found.considered, allowed[rows].sum(1) - 1)
    # Left out: transposed at the targets with shared targets out, and without the target.
    expected = [
        [j == i or (int(target[j] != target[i]) and bool(allowed[j, target[i]])) for j in range(3)]
        for i in (2, 0)
    ]
    assert found.blocks.doc_queries.tolist() == expected
    without = allowed.clone()
    without[torch.arange(3), target] = False
    assert torch.equal(found.blocks.doc_docs, without[rows])


def test_fixed_tables_by_default_contrast_queries_of_one_task():
    pairing = fixed(torch.tensor([0, 1, 2]), torch.ones(3, 3).bool(), task=torch.tensor([5, 5, 6]))
    block = whole(pairing, EVERY).blocks.query_queries
    assert block.int().tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
