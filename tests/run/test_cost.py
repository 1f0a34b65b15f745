import io
from pathlib import Path

import pytest
from rich.console import Console

from embedtrain.evaluation.sweeping.cost import Cost
from embedtrain.evaluation.vectors.storage import Keeping
from embedtrain.run.cost import keeping_of, plan_table
from embedtrain.settings.commands import EvaluateSettings
from embedtrain.types import InputError


def settings(**changes):
    return EvaluateSettings(tasks=["local"], **changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Keeping(Path("out/vectors"), 20.0, 8.0, "float32")),
        ({"store": "none", "memory_gb": 0}, Keeping(None, 20.0, 0, "float32")),
        ({"store": "/shared/v", "store_dtype": "float16"}, Keeping(Path("/shared/v"), 20.0, 8.0, "float16")),
    ],
)
def test_keys_say_where_vectors_are(changes, expected):
    assert keeping_of(settings(**changes), Path("out")) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"store_dtype": "int8"}, "store_dtype must be one of float32, float16, got 'int8'"),
        ({"store_gb": -1}, "store_gb must not be negative, got -1"),
        ({"memory_gb": -0.5}, "memory_gb must not be negative, got -0.5"),
    ],
)
def test_other_values_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        keeping_of(settings(**changes), Path("out"))


def test_the_table_has_a_line_a_task_and_marks_estimates():
    console = Console(width=200, record=True, file=io.StringIO())
    exact = Cost("mine", 2_552, 36_689, True, 2**30, 1.5e12, 51.0, "memory")
    console.print(plan_table([exact, Cost("SciFact", 5_483, 10, False, 2**29, 5e11, 7_300.0, "streamed")]))
    text = console.export_text()
    for part in ("2,552", "~5,483", "1 GB", "0.5 GB", "51.0 s", "2 h 2 min", "streamed", "8,035", "1.5 GB"):
        assert part in text
