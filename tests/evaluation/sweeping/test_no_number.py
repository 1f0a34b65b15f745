"""A main score that is no number is an error and never a result."""

from types import SimpleNamespace

import pytest

from embedtrain.evaluation.sweeping.results import rows_of
from embedtrain.types import Cell, InputError

METADATA = SimpleNamespace(main_score="cosine_spearman", type="STS", name="mine")
TASK = SimpleNamespace(metadata=METADATA, eval_splits=["test"], hf_subsets=["de", "en"])
SWEEP = SimpleNamespace(run="x", step=3)


def result(german, english):
    parts = [("de", german), ("en", english)]
    return SimpleNamespace(scores={"test": [{"hf_subset": name, "main_score": it} for name, it in parts]})


def test_numbers_are_averaged():
    (row,) = rows_of(result(0.5, 0.7), TASK, SWEEP, Cell(2, 8))
    assert (row.metric, row.value, row.step) == ("cosine_spearman", 0.6, 3)


@pytest.mark.parametrize("values", [(float("nan"), 0.7), (0.5, float("nan")), (float("nan"),) * 2])
def test_a_main_score_that_is_no_number_is_named(values):
    with pytest.raises(InputError, match=r"mine: cosine_spearman of .* not a number.*nothing is written"):
        rows_of(result(*values), TASK, SWEEP, Cell(2, 8))
