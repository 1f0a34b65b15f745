"""Batches of windows and of steps: functions of (data, seed, step), alike for any number of ranks."""

import pickle
from collections import Counter

import numpy as np
import pytest
from data_modules import example

from embedtrain.data.order import windows as windows_module
from embedtrain.data.order.sampler import EvenBatches, OneTask, part_for_rank, slice_for_rank
from embedtrain.data.order.windows import OneDataset, Several, Windows
from embedtrain.data.permutation import Permutation
from embedtrain.data.stores.memory import MemoryRows
from embedtrain.types import InputError


def row(query, positives=("p",), negatives=(), score=None, task="t"):
    return example(query, positives, negatives, score, task, f"a.jsonl:{query}")


def store_of(count, task="t"):
    return MemoryRows([row(f"{task}{i}", [f"p{task}{i}"], task=task) for i in range(count)], task)


class Counting(MemoryRows):
    """Counts the rows that are read."""

    taken = 0

    def take(self, numbers):
        self.taken += len(numbers)
        return super().take(numbers)


@pytest.fixture
def small_windows(monkeypatch):
    monkeypatch.setattr(windows_module, "WINDOW", 20)


def windows_of(store, size, seed=0, **options):
    return Windows(OneDataset(0, store, seed), size=size, seed=seed, **options)


def rows_of(batch):
    return [(row.dataset, row.row) for row in batch]


@pytest.mark.parametrize("count", [4, 7, 19, 20, 21, 43, 103])
@pytest.mark.usefixtures("small_windows")
def test_an_epoch_uses_every_row_once_but_those_of_its_last_short_batch(count):
    windows = windows_of(store_of(count), 4)
    assert windows.batches_per_epoch == count // 4
    for epoch in range(3):
        numbers = range(epoch * windows.batches_per_epoch, (epoch + 1) * windows.batches_per_epoch)
        batches = [windows.rows(number) for number in numbers]
        assert {len(batch) for batch in batches} == {4}
        assert {row.epoch for batch in batches for row in batch} == {epoch}
        used = Counter(row.row for batch in batches for row in batch)
        assert max(used.values()) == 1
        assert len(used) == count // 4 * 4
        assert set(used) <= set(range(count))


@pytest.mark.usefixtures("small_windows")
def test_a_window_is_made_of_consecutive_positions_and_read_once():
    store = Counting(store_of(103).examples, "t")
    windows = windows_of(store, 4)
    order = Permutation(103, (0, 0))(np.arange(103)).tolist()
    first = [windows.rows(number) for number in range(5)]
    assert store.taken == 20
    assert {row.row for batch in first for row in batch} <= set(order[:20])
    for number in range(5, 25):
        windows.rows(number)
    assert store.taken == 103


def test_scored_and_unscored_rows_of_a_stream_are_refused_when_they_meet():
    mixed = [row("q", ["p"]), row("r", ["s"], score=1.0)]
    with pytest.raises(InputError, match=r"a\.jsonl:q is a pair without a score and a\.jsonl:r is a scored"):
        windows_of(MemoryRows(mixed, "t"), 2).rows(0)


@pytest.mark.usefixtures("small_windows")
def test_order_depends_on_seed_and_epoch_only():
    one, two, other = (windows_of(store_of(50), 4, seed) for seed in (5, 5, 6))
    numbers = [35, 0, 7, 34]
    found = {number: rows_of(one.rows(number)) for number in numbers}
    assert found == {number: rows_of(two.rows(number)) for number in sorted(numbers)}
    assert rows_of(one.rows(0)) != rows_of(one.rows(12)) != rows_of(other.rows(0))
    copy = pickle.loads(pickle.dumps(one))
    assert copy._cached is None
    assert {number: rows_of(copy.rows(number)) for number in numbers} == found


@pytest.mark.usefixtures("small_windows")
def test_steps_of_one_task_go_through_each_dataset_in_its_own_order():
    stores = [store_of(40, "a"), store_of(24, "b")]
    datasets = [Windows(OneDataset(n, store, 0), size=4, seed=0) for n, store in enumerate(stores)]
    plan = OneTask(datasets, [20, 6], seed=0)
    steps = [plan.rows(step) for step in range(26)]
    assert all(len({row.dataset for row in rows}) == 1 for rows in steps)
    for number, windows in enumerate(datasets):
        own = [rows for rows in steps if rows[0].dataset == number]
        assert own == [windows.rows(place) for place in range(len(own))]
    turns = [rows[0].dataset for rows in steps]
    assert turns.count(1) == 6
    assert all(1 <= turns[part : part + 13].count(1) <= 5 for part in (0, 13))
    assert plan.rows(25) == steps[25]


@pytest.mark.usefixtures("small_windows")
def test_mixed_batches_hold_rows_of_all_datasets_each_in_its_order():
    stores = [store_of(40, "a"), store_of(24, "b"), store_of(8, "c")]
    plan = Windows(Several(stores, [80, 48, 16], 0), size=12, seed=0)
    steps = [plan.rows(step) for step in range(12)]
    assert all(len(rows) == 12 for rows in steps)
    for number, store in enumerate(stores):
        used = Counter((row.epoch, row.row) for rows in steps for row in rows if row.dataset == number)
        assert used == {(epoch, row): 1 for epoch in (0, 1) for row in range(len(store))}
    assert [len({row.dataset for row in rows}) for rows in steps].count(1) == 0
    assert plan.rows(3) == steps[3]


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


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_parts_are_even_and_complete(world):
    parts = [part_for_rank(range(7), rank, world) for rank in range(world)]
    assert [row for part in parts for row in part] == list(range(7))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(("count", "batch_size"), [(1, 4), (4, 4), (7, 4), (8, 4), (103, 10), (9, 1)])
def test_even_batches_hold_every_row_once_in_order(count, batch_size):
    batches = EvenBatches(store_of(count).examples, batch_size=batch_size)
    plan = [batches.rows(step) for step in range(batches.batches)]
    assert [r.row for rows in plan for r in rows] == list(range(count))
    assert {r.epoch for rows in plan for r in rows} == {0}
    assert all(min(count, batch_size) <= len(rows) < 2 * batch_size or count < batch_size for rows in plan)
