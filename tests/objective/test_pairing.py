import pytest
import torch

from embedtrain.objective.pairing import pair
from embedtrain.types import InputError, Links


def slow_allowed(links: Links, negatives: str) -> torch.Tensor:
    """The rules of `pair`, one couple at a time."""
    ids = links.text_ids.tolist()
    query_id = [ids[row] for row in links.query.tolist()]
    allowed = torch.zeros(len(links.query), len(links.docs), dtype=torch.bool)
    for i in range(len(links.query)):
        twins = {
            j
            for j in range(len(links.query))
            if query_id[j] == query_id[i] and links.task[j] == links.task[i]
        }
        forbidden = {query_id[i]} | {
            int(text)
            for text, owner in zip(links.known, links.known_owner, strict=True)
            if int(owner) in twins
        }
        for c in range(len(links.docs)):
            owner = int(links.owner[c])
            fits = links.task[owner] == links.task[i] and ids[int(links.docs[c])] not in forbidden
            if negatives == "own":
                fits = fits and (owner == i or c in links.positive.tolist())
            allowed[i, c] = bool(fits) or c == int(links.positive[i])
    return allowed


@pytest.mark.parametrize("negatives", ["all", "own"])
def test_pairing_equals_its_rules_spelt_out(random_links, negatives):
    seen = torch.zeros(2, dtype=torch.long)
    for seed in range(60):
        links = random_links(seed, queries=1 + seed % 9)
        pairing = pair(links, negatives=negatives)
        assert torch.equal(pairing.allowed, slow_allowed(links, negatives))
        assert torch.equal(pairing.target, links.positive)
        assert pairing.scores is links.scores
        seen += torch.tensor([pairing.allowed.sum(), (~pairing.allowed).sum()])
    assert seen.min() > 500  # the batches hold plenty of both kinds


def test_target_is_always_allowed(random_links):
    for seed in range(20):
        links = random_links(seed)
        # The target is also the query's own text: as in SimCSE, where a text is its own positive.
        links = links._replace(query=links.docs[links.positive])
        pairing = pair(links, negatives="own")
        assert pairing.allowed[torch.arange(len(links.query)), pairing.target].all()


def test_permuting_documents_permutes_columns(random_links):
    links = random_links(3)
    order = torch.randperm(len(links.docs), generator=torch.Generator().manual_seed(0))
    moved = links._replace(
        docs=links.docs[order], owner=links.owner[order], positive=order.argsort()[links.positive]
    )
    for negatives in ("all", "own"):
        before, after = pair(links, negatives=negatives), pair(moved, negatives=negatives)
        assert torch.equal(after.allowed, before.allowed[:, order])
        assert torch.equal(order[after.target], before.target)


def plain_links(**changes: torch.Tensor) -> Links:
    """Two queries (texts 10, 20) with positives 11, 21 and one hard negative each, 12 and 22."""
    links = Links(
        text_ids=torch.tensor([10, 20, 11, 12, 21, 22]),
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


def test_everything_is_a_negative_where_nothing_clashes():
    assert pair(plain_links()).allowed.all()
    assert pair(plain_links()).scores is None


def test_own_leaves_out_the_hard_negatives_of_others_and_keeps_their_positives():
    expected = torch.tensor([[1, 1, 1, 0], [1, 0, 1, 1]], dtype=torch.bool)
    assert torch.equal(pair(plain_links(), negatives="own").allowed, expected)


def test_a_labelled_positive_that_is_not_the_target_is_no_negative():
    links = plain_links(known=torch.tensor([11, 21, 22]), known_owner=torch.tensor([0, 1, 0]))
    assert pair(links).allowed.tolist() == [[True, True, True, False], [True] * 4]


def test_queries_of_equal_text_share_their_labels():
    links = plain_links(query=torch.tensor([0, 0]))
    assert pair(links).allowed.tolist() == [[True, True, False, True], [False, True, True, True]]
    other_task = links._replace(task=torch.tensor([0, 1]))
    assert pair(other_task).allowed.tolist() == [[True, True, False, False], [False, False, True, True]]


def test_a_second_copy_of_the_target_is_no_negative():
    links = plain_links(text_ids=torch.tensor([10, 20, 11, 11, 21, 22]))
    assert pair(links).allowed[0].tolist() == [True, False, True, True]


def test_unknown_scope_names_the_choices():
    with pytest.raises(InputError, match='negatives must be "all" or "own", got \'shared\''):
        pair(plain_links(), negatives="shared")
