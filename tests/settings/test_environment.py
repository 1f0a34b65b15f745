"""What settings may read of the environment."""

import pytest
import yaml

from embedtrain.settings.commands import EvaluateSettings, MineSettings, TrainSettings
from embedtrain.settings.compose import effective
from embedtrain.settings.options import settings_from
from embedtrain.types import InputError

TASKS = {"tasks": ["local"]}
KEYS = {"name": "x", "data": {"train": "rows.jsonl"}}


@pytest.fixture(autouse=True)
def variables(monkeypatch):
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("COLOUR", "blue")


@pytest.mark.parametrize(
    "keys",
    [
        {"name": "${oc.env:COLOUR}"},
        {"name": "x_${oc.env:COLOUR}"},
        {"name": "${oc.env:COLOUR,${oc.env:HOME}}"},
        {"name": "${oc.decode:${oc.env:COLOUR}}"},
        {"backbone": {"prompts": {"query": "${oc.env:COLOUR}"}}},
        {"stages": [{"name": "${oc.env:COLOUR}"}]},
        {"logger": {"option": "wandb", "project": "${oc.env:COLOUR}"}},
        {"output_root": "${oc.env:HF_TOKEN}"},
        {"output_root": "/a/${oc.env:HF_TOKEN}"},
        {"backbone": {"path": "${oc.env:HF_TOKEN}"}},
        {"data": {"train": [{"source": "${oc.env:HF_TOKEN}"}]}},
    ],
)
def test_nothing_but_places_comes_from_the_environment(keys):
    with pytest.raises(InputError, match=r"may not hold \$\{oc\.env:(COLOUR|HF_TOKEN|HOME)\}") as refused:
        settings_from(TrainSettings, "train", KEYS | keys)
    assert "hf_secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "command", "keys"),
    [
        (TrainSettings, "train", KEYS | {"output_root": "${oc.env:SCRATCH}/runs"}),
        (TrainSettings, "train", KEYS | {"data": {"train": ["${oc.env:SCRATCH}/rows.jsonl"]}}),
        (TrainSettings, "train", KEYS | {"backbone": {"path": "${oc.env:NONE,/scratch/me}"}}),
        (
            EvaluateSettings,
            "evaluate",
            {"tasks": ["local"], "data_root": "${oc.env:SCRATCH}", "store": "${oc.env:SCRATCH}/v"},
        ),
        (
            MineSettings,
            "mine",
            {"source": "${oc.env:SCRATCH}/a.jsonl", "out": "b", "teacher": "minilm"},
        ),
    ],
)
def test_places_do(kind, command, keys):
    shown = yaml.safe_dump(effective(settings_from(kind, command, keys)))
    assert "/scratch/me" in shown
    assert "oc.env" not in shown


def test_a_variable_that_is_not_set_is_named():
    with pytest.raises(InputError, match="output_root: the environment has no variable NOWHERE"):
        settings_from(TrainSettings, "train", KEYS | {"output_root": "${oc.env:NOWHERE}"})
