import logging
from collections import Counter
from itertools import combinations

import pytest

from embedtrain.data.sampler import EvenBatches, GlobalBatches, slice_for_rank
from embedtrain.data.sources import Example
from embedtrain.types import InputError


def row(query, positives=("p",), negatives=(), score=None):
    return Example(query, tuple(positives), tuple(negatives), score, "t", f"a.jsonl:{query}")


UNIQUE = [row(f"q{i}", [f"p{i}"]) for i in range(103)]
SHARING = [row(f"q{i // 2}", [f"p{i % 40}", f"r{i}"], [f"p{(i * 7) % 60}", f"n{i % 5}"]) for i in range(200)]


def epoch_of(batches, epoch):
    length = batches.batches_per_epoch
    return [batches.rows(step) for step in range(epoch * length, (epoch + 1) * length)]


def clash(one, two):
    """The slow, obvious version: a text of both that is a query or positive of either."""
    label = [{e.query, *e.positives} for e in (one, two)]
    texts = [{e.query, *e.positives, *e.negatives} for e in (one, two)]
    return bool(label[0] & texts[1] or label[1] & texts[0])


@pytest.mark.parametrize("examples", [UNIQUE, SHARING], ids=["unique", "sharing"])
@pytest.mark.parametrize("batch_size", [2, 7, 10])
def test_batches_are_full_without_repeats_and_without_shared_texts(examples, batch_size):
    batches = GlobalBatches(examples, batch_size=batch_size, seed=0)
    for epoch in range(3):
        plan = epoch_of(batches, epoch)
        used = Counter(r for rows in plan for r in rows)
        assert all(len(rows) == batch_size for rows in plan)
        assert max(used.values()) == 1 or len(plan) > len(batches._planned(epoch))
        for rows in plan:
            assert not any(clash(examples[a], examples[b]) for a, b in combinations(rows, 2))


def test_unique_rows_lose_only_the_last_short_batch(caplog):
    with caplog.at_level(logging.INFO):
        batches = GlobalBatches(UNIQUE, batch_size=10, seed=0)
    assert batches.batches_per_epoch == 10
    assert caplog.text.count("3 of 103 rows are left out of each epoch") == 1


def test_rows_may_share_a_negative():
    examples = [row(f"q{i}", [f"p{i}"], ["same"]) for i in range(8)]
    assert GlobalBatches(examples, batch_size=8, seed=0).batches_per_epoch == 1


def test_few_labels_still_fill_almost_every_batch():
    examples = [row(f"q{i}", [f"label {i % 100}"]) for i in range(10_000)]
    assert GlobalBatches(examples, batch_size=64, seed=0).batches_per_epoch >= 0.98 * (10_000 // 64)


def test_order_depends_on_seed_and_epoch_only():
    one, two = (GlobalBatches(SHARING, batch_size=10, seed=5) for _ in range(2))
    last = 3 * one.batches_per_epoch - 1
    steps = [last, 0, 7, last - 1]
    assert {step: one.rows(step) for step in steps} == {step: two.rows(step) for step in sorted(steps)}
    assert epoch_of(one, 0) != epoch_of(one, 1)
    assert epoch_of(one, 0) != epoch_of(GlobalBatches(SHARING, batch_size=10, seed=6), 0)
    assert one.epoch(last) == 2


def test_epoch_that_fills_fewer_batches_repeats_its_own_first():
    examples = [row(f"q{i}", [f"label {i % 70}"]) for i in range(10_000)]
    for seed in range(5):
        batches = GlobalBatches(examples, batch_size=64, seed=seed)
        for epoch in range(1, 8):
            filled = batches._planned(epoch)
            if len(filled) < batches.batches_per_epoch:
                plan = epoch_of(batches, epoch)
                assert len(plan) == batches.batches_per_epoch
                assert plan[len(filled) :] == filled[: len(plan) - len(filled)]
                return
    pytest.fail("no seed left an epoch short; make the data harder")


def test_scored_rows_may_share_texts():
    examples = [row("q", ["p"], score=float(i)) for i in range(20)]
    batches = GlobalBatches(examples, batch_size=6, seed=0)
    assert batches.batches_per_epoch == 3
    assert len({r for rows in epoch_of(batches, 0) for r in rows}) == 18


@pytest.mark.parametrize(
    ("examples", "batch_size", "message"),
    [
        (UNIQUE, 1, r"a\.jsonl:q0: nothing to contrast: .* Set batch_size to 2 or more, or add negatives"),
        (UNIQUE, 104, "batch_size=104 is more than the 103 training rows. Set batch_size to 103 or less"),
        (UNIQUE, 0, "batch_size must be 1 or more, got 0"),
        ([row("same", [f"p{i}"]) for i in range(9)], 2, "all 9 rows share the text 'same'"),
        (
            [row(f"q{i}", [f"l{i % 3}"]) for i in range(9)],
            4,
            r"the largest has 3\): .* in 3 of 9 rows. Set batch_size to 3 or less",
        ),
    ],
)
def test_errors(examples, batch_size, message):
    with pytest.raises(InputError, match=message):
        GlobalBatches(examples, batch_size=batch_size, seed=0)


def test_batch_of_one_with_own_negatives_is_fine():
    examples = [row("same", [f"p{i}"], ["n"]) for i in range(4)]
    assert sorted(r for rows in epoch_of(GlobalBatches(examples, batch_size=1, seed=0), 0) for r in rows) == [
        0,
        1,
        2,
        3,
    ]


def test_slices_make_the_global_batch_again():
    rows = list(range(12))
    for world in (1, 2, 3, 4, 6, 12):
        parts = [slice_for_rank(rows, rank, world) for rank in range(world)]
        assert {len(part) for part in parts} == {12 // world}
        assert [r for part in parts for r in part] == rows
    with pytest.raises(
        InputError, match="batch_size=12 cannot be split evenly over 5 ranks: make it 10 or 15"
    ):
        slice_for_rank(rows, 0, 5)
    with pytest.raises(InputError, match="over 16 ranks: make it 16"):
        slice_for_rank(rows, 0, 16)


@pytest.mark.parametrize(("count", "batch_size"), [(1, 4), (4, 4), (7, 4), (8, 4), (103, 10), (9, 1)])
def test_even_batches_hold_every_row_once_in_order(count, batch_size):
    batches = EvenBatches(count, batch_size=batch_size)
    plan = epoch_of(batches, 0)
    assert [r for rows in plan for r in rows] == list(range(count))
    assert all(min(count, batch_size) <= len(rows) < 2 * batch_size or count < batch_size for rows in plan)
