"""Which positive and which negatives take part: functions of (seed, epoch, row)."""

import pytest

from embedtrain.data.order.draw import Draw, pick
from embedtrain.data.read.sources import Example
from embedtrain.types import InputError


def test_all_and_few_negatives_are_taken_whole():
    for how in ("all", "first", "rotate", "sample"):
        assert list(Draw(None, how).numbers(5, 3, 2)) == [0, 1, 2, 3, 4]
        assert list(Draw(5, how).numbers(5, 3, 2)) == [0, 1, 2, 3, 4]
        assert list(Draw(2, how).numbers(0, 3, 2)) == []
    assert list(Draw(2, "all").numbers(5, 3, 2)) == [0, 1, 2, 3, 4]


def test_first_takes_the_same_ones_in_every_epoch():
    assert {tuple(Draw(2, "first").numbers(5, row, epoch)) for row in range(4) for epoch in range(4)} == {
        (0, 1)
    }


def test_rotating_negatives_take_their_turns():
    taken = [tuple(Draw(2, "rotate").numbers(5, 0, epoch)) for epoch in range(5)]
    assert taken == [(0, 1), (2, 3), (4, 0), (1, 2), (3, 4)]


def test_samples_depend_on_seed_epoch_and_row_and_are_fair():
    draw = Draw(2, "sample", seed=1)
    taken = [tuple(draw.numbers(5, row, epoch)) for row in range(100) for epoch in range(10)]
    assert taken == [tuple(draw.numbers(5, row, epoch)) for row in range(100) for epoch in range(10)]
    assert taken != [tuple(Draw(2, "sample", seed=2).numbers(5, r, e)) for r in range(100) for e in range(10)]
    assert all(len(set(pair)) == 2 for pair in taken)
    times = [sum(number in pair for pair in taken) for number in range(5)]
    assert all(340 < count < 460 for count in times), times  # 400 expected, standard deviation 15
    rows = {tuple(draw.numbers(5, row, 0)) for row in range(100)}
    epochs = {tuple(draw.numbers(5, 0, epoch)) for epoch in range(100)}
    assert len(rows) == len(epochs) == 10  # all couples of five


def test_positives_take_turns_over_epochs_and_rows():
    example = Example("q", ("a", "b", "c"), (), None, "t", "f:1")
    assert [pick(example, 1, epoch).positive for epoch in range(4)] == [1, 2, 0, 1]
    assert [pick(example, row).positive for row in range(4)] == [0, 1, 2, 0]
    assert pick(example, 4).number == 4
    assert pick(example, 4, number=9).number == 9
    assert pick(example, 4, number=9).positive == 1


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (Draw(None, "some"), "here: draw_negatives must be one of all, first, rotate, sample, got 'some'"),
        (Draw(-1), "here: the most negatives of a row must be 0 or more, got -1"),
        (Draw(1.5), "must be 0 or more, got 1.5"),
    ],
)
def test_settings_that_do_not_exist_are_refused(draw, message):
    with pytest.raises(InputError, match=message):
        draw.checked("here: ")
