"""The commands: registered once, quick to answer, and shown with every setting."""

import importlib
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml

from embedtrain.cli import start
from embedtrain.cli.commands import COMMANDS, help_of, overview
from embedtrain.settings import commands, tools
from embedtrain.settings.places import config_dir

ROOT = Path(__file__).parents[2]
SLOW = {"torch", "transformers", "mteb", "pytorch_lightning", "datasets", "sentence_transformers", "numpy"}
ASK = """
import sys
from embedtrain.cli.start import main
sys.argv = ["embedtrain", *sys.argv[1:]]
try:
    main()
except SystemExit:
    pass
print(sorted(set(sys.modules) & {slow}))
"""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "embedtrain train"),
        ("train --help", "recipe=quickstart_minilm"),
        ("trian", "did you mean 'train'?"),
        ("train contrast=gist", "it is now 'loss'"),
        (
            "train name=x data.train=y optim.lrr=1",
            "AdamW has no setting 'lrr'; did you mean 'optim.lr'?",
        ),
        ("train name=x data.train=y plan.piars=1", "plan.piars: FixedPairs has no setting 'piars'"),
        ("train trainer.accumulate=2", "it is now 'trainer.accumulate_grad_batches'"),
        ("evaluate layer=[1]", "did you mean 'layers'?"),
    ],
)
def test_an_answer_needs_no_library_that_is_slow_to_import(words, said):
    code = ASK.replace("{slow}", repr(SLOW))
    done = subprocess.run(
        [sys.executable, "-c", code, *words.split()], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert said in done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_scripts_and_modules_are_those_of_the_table():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    own = {f"embedtrain-{name}": f"embedtrain.cli.{name}:main" for name in COMMANDS}
    assert scripts == {"embedtrain": "embedtrain.cli.start:main", **own}
    for name, command in COMMANDS.items():
        module = importlib.import_module(f"embedtrain.cli.{name}")
        assert get_type_hints(module.run, vars(commands) | vars(tools))["settings"] is command.settings
        assert (config_dir("conf") / f"{command.config}.yaml").is_file()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_what_it_does_with_examples_groups_and_recipes(name):
    text = help_of(name)
    assert text.splitlines()[:2] == [COMMANDS[name].line, COMMANDS[name].more]
    assert text.count(f"  embedtrain-{name} ") == 3
    assert ("nvembed_smollm2" in text) == (name in ("train", "doctor"))
    assert ("  selection: abs margin_pos" in text) == (name == "mine")
    assert ("  method: average cocktail" in text) == (name == "merge")
    assert ("  maker: body_first generated" in text) == (name == "pairs")
    assert COMMANDS[name].line in overview()


@pytest.mark.parametrize(
    ("name", "words"), [(name, words) for name, command in COMMANDS.items() for words in command.examples]
)
def test_an_example_composes_and_shows_every_setting(monkeypatch, capsys, name, words):
    monkeypatch.setattr(sys, "argv", ["embedtrain", name, *shlex.split(words), "show=true"])
    start.main()
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown.keys() == COMMANDS[name].settings.__dataclass_fields__.keys()
    if name == "train":
        assert {"lr", "weight_decay", "warmup"} < shown["optim"].keys()
