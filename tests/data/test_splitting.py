import logging

import pytest

from embedtrain.data.read.sources import Example
from embedtrain.data.splitting import held_out
from embedtrain.types import InputError


def split_examples(examples, **options):
    """(train, validation)"""
    held = held_out(examples, **options)
    train = [example for example, out in zip(examples, held, strict=True) if not out]
    return train, [example for example, out in zip(examples, held, strict=True) if out]


def rows(pairs):
    return [Example(q, (p,), (), None, "t", f"a:{i}") for i, (q, p) in enumerate(pairs)]


EXAMPLES = rows((f"q{i // 3}", f"p{i // 2}") for i in range(0, 600, 5)) + rows(
    (f"z{i // 2}", f"y{i}") for i in range(80)
)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_both_sides_are_all_rows_and_share_no_query_or_positive(seed):
    train, validation = split_examples(EXAMPLES, fraction=0.2, seed=seed)
    assert sorted(train + validation) == sorted(EXAMPLES)
    assert len(validation) == 40
    assert not {e.query for e in train} & {e.query for e in validation}
    assert not {p for e in train for p in e.positives} & {p for e in validation for p in e.positives}
    assert validation == [e for e in EXAMPLES if e in validation]


def test_seed_alone_decides():
    first = split_examples(EXAMPLES, rows=10, seed=3)
    assert first == split_examples(EXAMPLES, rows=10, seed=3)
    assert first != split_examples(EXAMPLES, rows=10, seed=4)
    assert 8 <= len(first[1]) <= 10


def test_rows_chained_through_positives_stay_together():
    chain = rows((f"q{(i + 1) // 2}", f"p{i // 2}") for i in range(20))
    other = rows((f"a{i}", f"b{i}") for i in range(20))
    for seed in range(5):
        train, validation = split_examples(chain + other, rows=8, seed=seed)
        assert len(validation) == 8
        assert set(chain) <= set(train)


def test_hub_positive_falls_back_to_queries_with_a_warning(caplog):
    examples = rows((f"q{i}", "yes") for i in range(50))
    with caplog.at_level(logging.WARNING):
        train, validation = split_examples(examples, rows=10, seed=0)
    assert (len(train), len(validation)) == (40, 10)
    assert "only rows of one query stay together" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction": 1.5}, "validation_fraction must be between 0 and 1, got 1.5"),
        ({"rows": 200}, "validation of 200 rows cannot be split off 200 rows"),
        ({"rows": 0}, "validation of 0 rows"),
        ({}, "a fraction or a number of rows"),
        ({"rows": 3, "fraction": 0.1}, "one of the two"),
    ],
)
def test_size_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        split_examples(EXAMPLES, **options, seed=0)


def test_one_query_everywhere_cannot_be_split():
    with pytest.raises(InputError, match="too many share one query"):
        split_examples(rows(("q", f"p{i}") for i in range(9)), rows=3, seed=0)
