import hashlib
import itertools

import numpy as np
import pytest
from scipy.stats import chisquare, kstest

from embedtrain.data.permutation import Permutation

GOLDEN_10 = [6, 3, 1, 8, 4, 7, 9, 5, 2, 0]
GOLDEN_100_MILLION = [14975726, 64440129, 49439278, 28403934, 15374320]
GOLDEN_LARGEST = [2049524877738753020, 533369963304654692]


def everything(count, *key):
    return Permutation(count, key)(np.arange(count))


def obvious(count, key, position):
    """One number at a time, in Python's own integers."""
    half = 1
    while 4**half < count:
        half += 1
    said = ",".join(map(str, (count, *key))).encode()
    digest = hashlib.blake2b(said, digest_size=64).digest()
    keys = [int.from_bytes(digest[8 * n : 8 * n + 8], "little") for n in range(8)]
    while True:
        left, right = divmod(position, 2**half)
        for key_of_round in keys:
            mixed = (right ^ key_of_round) * 0xBF58476D1CE4E5B9 % 2**64
            mixed = (mixed ^ (mixed >> 29)) * 0x94D049BB133111EB % 2**64
            left, right = right, left ^ (mixed >> (64 - half))
        position = left * 2**half + right
        if position < count:
            return position


@pytest.mark.parametrize("count", [*range(1, 40), 63, 64, 65, 255, 256, 257, 1000, 4096, 4097, 40_000])
def test_it_is_a_bijection(count):
    for key in ((0,), (7, 3), (2**70, -1)):
        np.testing.assert_array_equal(np.sort(everything(count, *key)), np.arange(count))


@pytest.mark.parametrize("count", [1, 2, 5, 64, 1025, 10**8, 2**53 + 1, 2**62 - 1, 2**62])
def test_it_equals_the_slow_obvious_version(count):
    positions = np.unique(np.random.default_rng(0).integers(0, count, 50))
    positions = np.concatenate([positions, [0, count - 1]])
    found = Permutation(count, (5, 6))(positions)
    assert found.dtype == np.int64
    assert found.tolist() == [obvious(count, (5, 6), position) for position in positions.tolist()]


def test_the_order_never_changes():
    assert everything(10, 0, 0).tolist() == GOLDEN_10
    assert Permutation(10**8, (1, 2))(np.arange(5)).tolist() == GOLDEN_100_MILLION
    assert Permutation(2**62, (1, 2))(np.arange(2)).tolist() == GOLDEN_LARGEST


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 17, 50])
def test_every_number_comes_equally_often_to_every_position(count):
    times = max(400, 40 * count)
    table = np.zeros((count, count))
    for epoch in range(times):
        table[np.arange(count), everything(count, 11, epoch)] += 1
    lost = 2 * count - 1  # each row and each column of the table adds up
    assert chisquare(table.ravel(), ddof=lost - 1).pvalue > 1e-3


def test_epochs_have_no_pattern_in_common():
    count = 20_000
    orders = [everything(count, 3, epoch) for epoch in range(4)]
    for order in orders:
        assert abs(np.corrcoef(order, np.arange(count))[0, 1]) < 0.03
        assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.03
        assert (order == np.arange(count)).sum() < 8  # a random one has 1 fixed point on average
    for one, other in itertools.pairwise(orders):
        assert (one == other).sum() < 8
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.03
        shifts = np.bincount((one - other) % count, minlength=count)
        assert shifts.max() < 12  # no epoch is another one moved along


def test_the_first_numbers_of_a_large_order_are_spread_evenly():
    count = 10**12
    drawn = Permutation(count, (0, 9))(np.arange(5_000))
    assert len(np.unique(drawn)) == 5_000
    assert kstest(drawn / count, "uniform").pvalue > 1e-3


def test_shape_is_kept_and_any_slice_stands_alone():
    whole = everything(1000, 4)
    np.testing.assert_array_equal(
        Permutation(1000, (4,))(np.arange(1000).reshape(10, 100)), whole.reshape(10, 100)
    )
    np.testing.assert_array_equal(Permutation(1000, (4,))(np.array([999, 3])), whole[[999, 3]])
    assert Permutation(1000, (4,))(np.array([], dtype=np.int64)).tolist() == []


def test_what_is_out_of_range_is_refused():
    for count in (0, -1, 2**62 + 1):
        with pytest.raises(ValueError, match="count must be in"):
            Permutation(count, (0,))
    for position in (-1, 10):
        with pytest.raises(ValueError, match=r"positions must be in 0\.\.9"):
            Permutation(10, (0,))(np.array([position]))
