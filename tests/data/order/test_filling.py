"""Full batches of a window that share as few texts as can be."""

from collections import Counter
from itertools import combinations

import pytest
from data_modules import example

from embedtrain.data.order.filling import _apart, full_batches


def row(query, positives=("p",), negatives=(), score=None, task="t"):
    return example(query, positives, negatives, score, task, f"a.jsonl:{query}")


UNIQUE = [row(f"q{i}", [f"p{i}"]) for i in range(103)]
SHARING = [row(f"q{i // 2}", [f"p{i % 40}", f"r{i}"], [f"p{(i * 7) % 60}", f"n{i % 5}"]) for i in range(400)]


def clash(one, two):
    """The slow, obvious version: a text of both that is a query or positive of either."""
    label = [{e.query, *e.positives} for e in (one, two)]
    texts = [{e.query, *e.positives, *e.negatives} for e in (one, two)]
    return bool(label[0] & texts[1] or label[1] & texts[0])


def clashing(examples, batches):
    """Rows that clash with another of their batch."""
    return {
        row
        for batch in batches
        for a, b in combinations(batch, 2)
        if clash(examples[a], examples[b])
        for row in (a, b)
    }


@pytest.mark.parametrize("examples", [UNIQUE, SHARING], ids=["unique", "sharing"])
@pytest.mark.parametrize("size", [2, 7, 10])
@pytest.mark.parametrize("group_by_length", [False, True])
def test_batches_are_full_and_no_row_comes_twice(examples, size, group_by_length):
    count = len(examples) // size
    for key in range(3):
        found = full_batches(examples, count, size, key=(key,), group_by_length=group_by_length)
        assert [len(batch) for batch in found] == [size] * count
        assert max(Counter(r for batch in found for r in batch).values()) == 1


def test_rows_are_kept_apart_where_that_is_possible():
    for key in range(5):
        found = full_batches(SHARING, 40, 5, key=(key,))  # half of the rows suffice
        assert not clashing(SHARING, found)


def test_a_row_that_no_batch_takes_is_forced_into_one_and_counted():
    found = full_batches(SHARING, 40, 10, key=(0,))
    together = clashing(SHARING, found)
    assert 0 < len(together) < 200
    cut = [list(range(place, place + 10)) for place in range(0, 400, 10)]
    assert len(together) < len(clashing(SHARING, cut)) / 2


def test_few_labels_hardly_share():
    examples = [row(f"q{i}", [f"label {i % 100}"]) for i in range(8192)]
    found = full_batches(examples, 128, 64, key=(0,))
    assert sum(len(batch) - len({examples[r].positives for r in batch}) for batch in found) < 0.02 * 8192


def test_a_text_that_half_of_the_rows_have_is_spread_over_all_batches():
    examples = [row(f"q{i}", ["same" if i % 2 else f"p{i}"]) for i in range(2048)]
    found = full_batches(examples, 32, 64, key=(0,))
    has = [sum("same" in examples[r].positives for r in batch) for batch in found]
    assert min(has) > 20
    assert max(has) < 44


def test_what_is_left_out_are_rows_that_would_share():
    examples = [row(f"q{i}", [f"p{i}"]) for i in range(8)] + [row(f"z{i}", ["same"]) for i in range(4)]
    for key in range(10):
        found = full_batches(examples, 1, 9, key=(key,))
        assert sorted(found[0])[:8] == list(range(8))


def test_rows_may_share_a_negative():
    examples = [row(f"q{i}", [f"p{i}"], ["same"]) for i in range(10)]
    assert not set_aside(examples)


@pytest.mark.parametrize(
    ("examples", "alone", "expected"),
    [
        ([row("q", ["p"], score=float(i)) for i in range(20)], (), 0),
        ([row("q", ["p"], [f"n{i}"]) for i in range(20)], (), 15),
        ([row("q", ["p"], [f"n{i}"]) for i in range(20)], {"t"}, 0),
        ([row("q", ["p"], task=f"t{i}") for i in range(20)], (), 0),
    ],
)
def test_rows_that_never_contrast_may_share_texts(examples, alone, expected):
    assert len(set_aside(examples, alone)) == expected


def set_aside(examples, alone=()):
    """The rows that share a text with every one of five batches."""
    return _apart(range(len(examples)), examples, 5, max(1, len(examples) // 5), alone)[1]


def test_too_few_rows_come_again():
    for examples in (UNIQUE[:7], SHARING[:7]):
        found = full_batches(examples, 2, 5, key=(0,))
        assert [len(batch) for batch in found] == [5, 5]
        used = Counter(r for batch in found for r in batch)
        assert len(used) == 7
        assert max(used.values()) <= 2


def test_the_key_decides_the_order():
    one, two, other = (full_batches(SHARING, 40, 10, key=key) for key in ((0, 1), (0, 1), (1, 0)))
    assert one == two != other


def test_rows_of_similar_length_share_batches():
    examples = [row(f"q{i}", ["x" * (1 + (i * 37) % 500) + f" {i}"]) for i in range(1024)]

    def padding(group_by_length):
        batches = full_batches(examples, 64, 16, key=(0,), group_by_length=group_by_length)
        lengths = [[len(examples[r].positives[0]) for r in batch] for batch in batches]
        return sum(max(batch) * len(batch) - sum(batch) for batch in lengths), lengths

    assert padding(True)[0] < padding(False)[0] / 4
    firsts = [batch[0] for batch in padding(True)[1]]
    assert firsts != sorted(firsts)
    assert firsts[:3] != sorted(firsts[:3]) or firsts[3:6] != sorted(firsts[3:6])
