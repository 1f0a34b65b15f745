"""docs/coming_from_sentence_transformers.md names every setting of the peer, and only settings of ours."""

import dataclasses
import re
from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformerTrainingArguments, evaluation, losses

from embedtrain.settings.names import ELSEWHERE
from embedtrain.settings.places import config_dir

PAGE = (Path(__file__).parents[1] / "docs/coming_from_sentence_transformers.md").read_text("utf-8")
ROWS = [line.split("|")[1:4] for line in PAGE.splitlines() if line.startswith("| `")]
THEIRS = {name for row in ROWS for name in re.findall(r"`(\w+)`", row[0])}


def test_every_training_argument_is_in_the_table():
    arguments = {item.name for item in dataclasses.fields(SentenceTransformerTrainingArguments) if item.init}
    assert sorted(arguments - THEIRS) == []


@pytest.mark.parametrize("module", [losses, evaluation])
def test_every_loss_and_evaluator_is_in_the_table(module):
    assert sorted(set(module.__all__) - THEIRS) == []


def test_options_of_ours_exist():
    groups = {path.name for path in config_dir("conf").iterdir() if path.is_dir()}
    named = {found for row in ROWS for found in re.findall(r"\b(\w+)=(\w+)", row[1]) if found[0] in groups}
    assert ("plan", "random2d") in named
    assert [pair for pair in named if not (config_dir("conf") / pair[0] / f"{pair[1]}.yaml").exists()] == []


@pytest.mark.parametrize("name", [name for name in ELSEWHERE if name.startswith("loss=")])
def test_the_page_and_the_error_name_the_same_option(name):
    cells = [row[1] for row in ROWS if f"`{name.removeprefix('loss=')}`" in row[0]]
    assert len(cells) == 1
    assert [word for word in ELSEWHERE[name].split() if word not in cells[0]] == []
