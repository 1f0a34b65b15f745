"""Every number of every command has a range, and what is outside is one line with it."""

import dataclasses
from typing import get_args, get_origin, get_type_hints

import pytest

from embedtrain.cli.commands import COMMANDS
from embedtrain.settings.checks import FILLED, RANGES
from embedtrain.settings.commands import (
    CompareSettings,
    DataSettings,
    DoctorSettings,
    EvaluateSettings,
    EvaluationSettings,
    ExportSettings,
    TrainerSettings,
)
from embedtrain.settings.component import Component
from embedtrain.settings.hints import without_none
from embedtrain.settings.tools import RotateSettings
from embedtrain.types import InputError

NEEDED = {
    DataSettings: {"train": "y"},
    EvaluateSettings: {"tasks": ["x"]},
    ExportSettings: {"model": "m", "out": "o"},
    CompareSettings: {"runs": ["a"]},
    RotateSettings: {"model": "m", "source": "s", "out": "o", "loss": Component("x")},
}
KINDS = (*NEEDED, TrainerSettings, EvaluationSettings, DoctorSettings)


def numbers(kind):
    """The settings of a dataclass that are numbers, or lists of them."""
    for item in dataclasses.fields(kind):
        hint = without_none(get_type_hints(kind)[item.name])[0]
        one = get_args(hint)[0] if get_origin(hint) is list else hint
        if one in (int, float):
            yield item.name


def key_of(kind, name):
    return next((key for key in (f"{kind.__name__}.{name}", name) if key in RANGES), None)


def test_every_number_has_a_range():
    kinds = {command.settings for command in COMMANDS.values()} | set(KINDS)
    assert [(kind.__name__, name) for kind in kinds for name in numbers(kind) if not key_of(kind, name)] == []
    found = {key_of(kind, name) for kind in kinds for name in numbers(kind)}
    assert RANGES.keys() == found, "a range that no setting has"


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in numbers(kind)])
def test_what_is_outside_is_named_with_the_range(kind, name):
    allowed = RANGES[key_of(kind, name)]
    many = get_origin(without_none(get_type_hints(kind)[name])[0]) is list
    outside = [allowed.low - (1 if allowed.ends else 0), float("nan"), -(2**40)]
    if allowed.high is not None:
        outside.append(allowed.high + (1 if allowed.ends else 0))
    for value in outside:
        with pytest.raises(InputError) as refused:
            kind(**NEEDED.get(kind, {}) | {name: [value] if many else value})
        assert str(refused.value) == f"{name} must be {allowed}, got {value}"


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        ("train", "name=x data.train=y seed=-1", "seed must be in 0..4294967295, got -1"),
        ("train", "name=x data.train=y seed=5000000000", "seed must be in 0..4294967295"),
        ("train", "name=x data.train=y data.num_workers=-2", "data: num_workers must be 0 or more, got -2"),
        ("train", "name=x data.train=y trainer.devices=0", "trainer: devices must be 1 or more, got 0"),
        ("train", "name=x data.train=y data.validation_fraction=1.5", "validation_fraction must be in 0..1"),
        ("train", "name=x data.train=y evaluation.dims=[]", "evaluation: dims must hold one or more"),
        ("evaluate", "model=m tasks=[]", "tasks must hold one or more"),
        ("evaluate", "model=m tasks=[x] dtypes=[]", "dtypes must hold one or more"),
        ("evaluate", "model=m tasks=[x] layers=[0]", "layers must be 1 or more, got 0"),
        ("compare", "runs=[]", "runs must hold one or more"),
        ("compare", "runs=[a] alpha=1", "alpha must be between 0 and 1, got 1.0"),
        ("export", "model=m out=o dim=0", "dim must be 1 or more, got 0"),
        ("mine", "source=a out=b teacher=minilm seed=-1", "seed must be in 0..4294967295, got -1"),
        ("doctor", "name=x data.train=y doctor.rows=1", "doctor: rows must be 2 or more, got 1"),
    ],
)
def test_a_command_says_it_in_one_line(error_of, command, words, said):
    assert said in error_of(command, *words.split())


def test_lists_that_must_be_filled_are_settings():
    names = {item.name for kind in KINDS for item in dataclasses.fields(kind)}
    assert {name.rpartition(".")[2] for name in FILLED} <= names
