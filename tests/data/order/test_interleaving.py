"""The line of items of several kinds, against sorting all of their times."""

import numpy as np
import pytest

from embedtrain.data.order.interleaving import Interleaved

COUNTS = ([1], [7], [5, 1, 12], [1, 1, 1, 1], [100, 3, 0, 57], [0, 4])


def slow(line):
    """All items by time, then kind, then number."""
    kinds = np.repeat(np.arange(len(line.counts)), line.counts)
    numbers = np.concatenate([np.arange(count) for count in line.counts])
    times = line._times(kinds, numbers)
    order = sorted(range(len(kinds)), key=lambda place: (times[place], kinds[place], numbers[place]))
    return [(int(kinds[place]), int(numbers[place])) for place in order]


@pytest.mark.parametrize("counts", COUNTS, ids=str)
@pytest.mark.parametrize("seed", [0, 5])
def test_the_line_is_the_items_sorted_by_time(counts, seed):
    line = Interleaved(counts, seed)
    expected = slow(line)
    for first in range(0, line.total, 5):
        last = min(first + 5, line.total)
        found = list(zip(*(part.tolist() for part in line.stretch(first, last)), strict=True))
        assert found == expected[first:last]
    for position in range(line.total + 1):
        here = [0] * len(counts)
        for kind, _ in expected[:position]:
            here[kind] += 1
        assert line.before(position).tolist() == here


def test_equal_times_stand_in_the_order_of_their_kinds(monkeypatch):
    monkeypatch.setattr(Interleaved, "_times", lambda self, kinds, numbers: (numbers + 0.5) / 4)
    line = Interleaved([4, 4, 4], 0)
    expected = [(kind, number) for number in range(4) for kind in range(3)]
    for position in range(13):
        here = [sum(kind == one for one, _ in expected[:position]) for kind in range(3)]
        assert line.before(position).tolist() == here
    kinds, numbers = line.stretch(1, 9)
    assert list(zip(kinds.tolist(), numbers.tolist(), strict=True)) == expected[1:9]


def test_every_stretch_holds_close_to_its_share_of_every_kind():
    line = Interleaved([6000, 3000, 1000], 3)
    for first in range(0, 10_000, 250):
        there = np.bincount(line.stretch(first, first + 250)[0], minlength=3)
        assert np.abs(there - [150, 75, 25]).max() <= 4


def test_the_seed_decides_and_neighbours_are_not_regular():
    one, two = (Interleaved([500, 500], seed).stretch(0, 1000)[0] for seed in (0, 1))
    assert one.tolist() != two.tolist()
    pairs = {tuple(one[place : place + 3].tolist()) for place in range(990)}
    assert len(pairs) > 5  # not 0, 1, 0, 1, ...


def test_a_hundred_million_items_cost_nothing():
    line = Interleaved([90_000_000, 9_999_000, 1000], 0)
    before = line.before(50_000_000)
    assert before.sum() == 50_000_000
    assert np.abs(before - line.counts / 2).max() <= 2
    kinds, numbers = line.stretch(50_000_000, 50_001_000)
    assert (numbers[kinds == 0] == before[0] + np.arange((kinds == 0).sum())).all()
