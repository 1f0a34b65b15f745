"""What messages advise can be typed or opened: every `key=value`, page, command and package in the source."""

import importlib.util
import re
import tomllib
from collections import defaultdict

import pytest
import yaml
from messages import ROOT, texts
from needed import NEEDED

from embedtrain.cli.commands import COMMANDS
from embedtrain.cli.launch import settings_from
from embedtrain.settings.commands import DataSettings, EvaluationSettings, TrainerSettings
from embedtrain.settings.hints import hint_of
from embedtrain.settings.names import ELSEWHERE, OLD_NAMES
from embedtrain.settings.places import config_dir
from embedtrain.settings.signatures import names_in_source
from embedtrain.types import InputError

WORD = re.compile(r"(?<![\w./$'\"-])([a-z_]+(?:\.[a-z_]+)*)=([^\s,;)'`]*)")
TAKEN_BEFORE = {
    "recipe",
    "show",
    "plan",
    "for",
}  # by the command line, or a command, itself
NO_SETTINGS = {  # what looks like one: names in sentences and patterns, and keywords of Python and Hydra
    "key", "group", "object_type", "trust_remote_code", "output_hidden_states", "n", "base",
    "corpus_words", "train_words", "device", "charset", "scale", "attention", "num_layers", "width", "dtype",
    "sep",
}  # fmt: skip
PREFIXED = ("hydra.",)


def advised():
    """key -> value -> places."""
    found = defaultdict(lambda: defaultdict(list))
    for text, place in texts():
        for key, value in WORD.findall(text):
            if key not in NO_SETTINGS and not key.startswith(PREFIXED):
                found[key][value.rstrip(".:")].append(place)
    return found


ADVISED = advised()
TARGETS = {"embedtrain.model.backbone.lora.add_lora"} | {
    target
    for path in config_dir("conf").glob("*/*.yaml")
    for target in re.findall(r"_target_: (embedtrain\.\S+)", path.read_text("utf-8"))
}
INNER = (DataSettings, TrainerSettings, EvaluationSettings)
NAMES_OF_PARTS = {name for target in TARGETS for name in names_in_source(target) or ()} | {
    name for kind in INNER for name in kind.__dataclass_fields__
}


def is_filled_in(value):
    """Whether a reader puts something in its place: ..., NAME, {}."""
    is_name = value == value.upper() != value.lower()
    return not value or is_name or any(part in value for part in ("{", "...", '"'))


def composes(command, word):
    """Whether a command takes the word, with an option of its group that has such a setting."""
    key = word.partition("=")[0]
    group, _, inner = key.partition(".")
    words = [one for one in NEEDED[command] if one.partition("=")[0] != key]
    folder = config_dir("conf") / group
    options = [[f"{group}={path.stem}"] for path in folder.glob("*.yaml")] if inner else []
    return any(_is_taken(command, [*words, *option, word]) for option in [[], *options])


def _is_taken(command, words):
    try:
        settings_from(command, words)
    except InputError as error:
        return "must be given" in str(error) or "contradicts" in str(error)
    except Exception:
        return False
    return True


@pytest.mark.parametrize("key", sorted(ADVISED))
def test_every_setting_that_is_advised_can_be_typed(key):
    first = key.partition(".")[0]
    if key in TAKEN_BEFORE:
        return
    homes = [name for name, command in COMMANDS.items() if first in command.settings.__dataclass_fields__]
    for value, places in ADVISED[key].items():
        if not homes:  # of a part, whose message begins with its group
            assert key in NAMES_OF_PARTS, places
        elif not is_filled_in(value) and not value.endswith("Loss"):
            assert any(composes(name, f"{key}={value}") for name in homes), (key, value, places)
        elif "." in key:
            known = any(hint_of(COMMANDS[name].settings, key.split(".")) is not None for name in homes)
            assert known or key.rpartition(".")[2] in NAMES_OF_PARTS, places


@pytest.mark.parametrize("cure", sorted({*OLD_NAMES.values(), *ELSEWHERE.values()}))
def test_every_name_for_a_foreign_one_can_be_typed(cure):
    words = re.findall(r"[a-z_]+(?:\.[a-z_]+)*(?:=\S+)?", cure.partition(",")[0])
    for word in (word for word in words if word not in ("and", "or")):
        key, _, value = word.partition("=")
        field = hint_of(COMMANDS["train"].settings, key.split("."))
        assert field is not None or key.rpartition(".")[2] in NAMES_OF_PARTS, cure
        assert not value or key == "temperature" or composes("train", word), cure


def test_pages_commands_modules_and_extras_are_there():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    checks = {
        r"\b(docs/[\w/]+\.md)": lambda page: (ROOT / page).is_file(),
        r"\bembedtrain-([a-z]+)(?= [a-z]+=| with|:)": lambda name: name in COMMANDS,
        r"pip install 'embedtrain\[(\w+)\]'": lambda extra: extra in extras,
        r"python -m ([a-z_.]+[a-z])": lambda module: importlib.util.find_spec(module) is not None,
    }
    found = {pattern: 0 for pattern in checks}
    for text, place in texts():
        for pattern, is_there in checks.items():
            for name in re.findall(pattern, text):
                found[pattern] += 1
                assert is_there(name), (name, place)
    assert all(found.values()), found


@pytest.mark.parametrize("name", COMMANDS)
def test_keys_of_examples_and_recipes_are_among_them(name):
    """The net under the pattern: what it must find is found."""
    for words in COMMANDS[name].examples:
        for key, value in WORD.findall(words.replace("'", "")):
            assert value.rstrip(".:") in ADVISED[key] or key in TAKEN_BEFORE or "[" in value
    assert yaml.safe_load((config_dir("conf") / f"{COMMANDS[name].config}.yaml").read_text("utf-8"))
