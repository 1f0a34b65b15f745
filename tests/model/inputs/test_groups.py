"""What the backbone runs at a time: every content once, in common rows where that is cheaper."""

import random

import pytest

from embedtrain.model.inputs.groups import MicroBatch, alone, cheaper, sharing


@pytest.mark.parametrize("make", [alone, sharing, cheaper])
def test_every_content_is_in_one_row(make):
    draw = random.Random(0)
    lengths = [draw.randint(1, 90) for _ in range(57)]
    groups = make(lengths, 512, 64)
    assert sorted(row for group in groups for row in group.rows) == list(range(57))
    for group in groups:
        assert group.lengths == [lengths[row] for row in group.rows]
        assert sum(group.counts) == len(group.rows)
        assert group.tokens() <= 512


def test_tokens_are_rows_times_the_fullest():
    assert MicroBatch([0, 1, 2], [2, 1], [3, 4, 5]).tokens() == 14


def test_short_texts_of_unlike_length_share_rows_and_long_ones_do_not():
    short = [5, 40, 7, 31, 12, 26, 9, 18] * 4
    assert cheaper(short, 2048, 128) == sharing(short, 2048, 128)
    long = [120, 128, 122, 125, 127, 60] * 4
    assert cheaper(long, 2048, 128) == alone(long, 2048, 128)
    alike = [16] * 64
    assert cheaper(alike, 2048, 128) == alone(alike, 2048, 128)
    assert cheaper([], 2048, 128) == []
