"""The recommended cut against looking at every cell."""

import random

import pytest

from embedtrain.reporting.verdict.facts import Wanted
from embedtrain.reporting.verdict.recommend import price, recommended
from embedtrain.types import Cell

WHOLE = Cell(6, 384)
DTYPES = ("float32", "int8", "binary")
GRID = [Cell(layer, dim, dtype) for layer in (1, 3, 6) for dim in (32, 96, 384) for dtype in DTYPES]
MS = {1: 0.5, 3: 1.4, 6: 2.9}


def pick(scores, **wanted):
    return recommended(scores, WHOLE, Wanted(**wanted), MS, {})


def drawn(seed):
    draw = random.Random(seed)
    return {cell: round(draw.uniform(60, 80), draw.choice([0, 2])) for cell in GRID}


@pytest.mark.parametrize("seed", range(40))
def test_without_a_budget_no_cheaper_cell_keeps_enough(seed):
    scores, tolerance = drawn(seed), random.Random(seed).choice([0.0, 0.02, 0.1, 1.0])
    cut = pick(scores, tolerance=tolerance)
    chosen = Cell(*cut[:3])
    floor = (1 - tolerance) * scores[WHOLE]
    assert scores[chosen] >= floor
    assert [cell for cell in GRID if scores[cell] >= floor and price(cell) < price(chosen)] == []
    assert (cut.score, cut.best) == (scores[chosen], scores[WHOLE])
    assert (cut.bytes_per_vector, cut.ms) == (chosen.bytes_per_vector, MS[chosen.layer])


@pytest.mark.parametrize("seed", range(40))
def test_within_a_budget_no_cell_is_better(seed):
    scores, draw = drawn(seed), random.Random(seed)
    most, slowest = draw.choice([None, 48, 400, 5000]), draw.choice([None, 1.0, 2.0])
    if most is None and slowest is None:
        most = 100
    cut = pick(scores, max_bytes=most, max_ms=slowest)
    within = [
        cell for cell in GRID
        if (most is None or cell.bytes_per_vector <= most) and (slowest is None or MS[cell.layer] <= slowest)
    ]  # fmt: skip
    assert cut.score == max(scores[cell] for cell in within)
    assert Cell(*cut[:3]) in within
    equal = [cell for cell in within if scores[cell] == cut.score]
    assert (cut.layer, cut.bytes_per_vector) == min((cell.layer, cell.bytes_per_vector) for cell in equal)


def test_the_whole_model_is_recommended_where_every_cut_loses_more():
    scores = {cell: 50.0 for cell in GRID} | {WHOLE: 80.0}
    assert Cell(*pick(scores)[:3]) == WHOLE


def test_nothing_is_recommended_without_the_whole_model_or_within_an_impossible_budget():
    scores = drawn(0)
    assert pick({cell: value for cell, value in scores.items() if cell != WHOLE}) is None
    assert pick(scores, max_bytes=1) is None
    assert recommended(scores, WHOLE, Wanted(max_ms=1.0), {}, {}) is None  # nothing was measured
