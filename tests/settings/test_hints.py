"""A value of another kind is refused by its key, wherever it comes from, in words of ours."""

import dataclasses
import re
from typing import get_type_hints

import pytest
import yaml
from needed import NEEDED
from small_runs import compose

from embedtrain.cli.commands import COMMANDS
from embedtrain.settings.commands import TrainSettings
from embedtrain.settings.component import Component
from embedtrain.settings.hints import without_none
from embedtrain.settings.options import merged, settings_from
from embedtrain.settings.stages import OF_THE_RUN, STAGED, stages_of
from embedtrain.types import InputError

OMEGACONF = re.compile(
    r"Value '|Merge error|Cannot (merge|assign|convert)|object_type|ListConfig|DictConfig|AnyNode"
)
WRONG = {int: "two", float: "two", bool: "perhaps", str: ["a"], list: 3, dict: 3, "settings": 3}


def wrong_values(kind, parents=()):
    """(path, value of another kind) of every setting, those of settings inside too."""
    for key, hint in get_type_hints(kind).items():
        inner, _ = without_none(hint)
        path = (*parents, key)
        if inner is Component:
            yield path, 3
        elif dataclasses.is_dataclass(inner):
            yield path, 3
            yield path, [1]
            yield from wrong_values(inner, path)
        else:
            origin = getattr(inner, "__origin__", inner)
            if origin in WRONG:
                yield path, WRONG[origin]


def nested(path, value):
    for key in reversed(path):
        value = {key: value}
    return value


def needed(name):
    """What a command is refused without, as mappings."""
    keys = {}
    for word in NEEDED[name]:
        key, _, value = word.partition("=")
        keys = merged(keys, nested(key.split("."), yaml.safe_load(value)))
    return keys


CASES = [
    (name, path, value)
    for name, command in COMMANDS.items()
    if name in NEEDED
    for path, value in wrong_values(command.settings)
]


@pytest.mark.parametrize(("name", "path", "value"), CASES)
def test_from_python(name, path, value):
    command = COMMANDS[name]
    with pytest.raises(InputError) as caught:
        settings_from(command.settings, command.config, merged(needed(name), nested(path, value)))
    told = str(caught.value)
    assert told.startswith(".".join(path)) or told.startswith(f"{path[0]}: {path[-1]}"), told
    assert not OMEGACONF.search(told), told


def staged_cases():
    for path, value in wrong_values(TrainSettings):
        if path[0] in STAGED and path[-1] not in OF_THE_RUN:
            yield path, value


@pytest.mark.parametrize(("path", "value"), staged_cases())
def test_in_a_stage(path, value):
    settings = compose(["name=x", "data.train=rows.jsonl"])
    settings = dataclasses.replace(settings, stages=[{"name": "one"} | nested(path, value)])
    with pytest.raises(InputError) as caught:
        stages_of(settings)
    told = str(caught.value)
    assert re.match(
        rf"stages\[0\][.:] ?{re.escape('.'.join(path))}|stages\[0\]: {path[0]}: {path[-1]}", told
    ), told
    assert not OMEGACONF.search(told), told
