"""The pages for people who come from elsewhere name every setting of the peer, and only settings of ours."""

import dataclasses
import re
from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformerTrainingArguments, evaluation, losses

from embedtrain.data.read.sources import read_examples
from embedtrain.settings.names import ELSEWHERE
from embedtrain.settings.places import config_dir

DOCS = Path(__file__).parents[1] / "docs"


def rows_of(page):
    """(theirs, ours, note) of each line of the tables."""
    lines = (DOCS / f"{page}.md").read_text("utf-8").splitlines()
    return [line.split("|")[1:4] for line in lines if line.startswith("| `")]


PAGES = {path.stem: rows_of(path.stem) for path in sorted(DOCS.glob("coming_from_*.md"))}
ROWS = PAGES["coming_from_sentence_transformers"]
THEIRS = {name for row in ROWS for name in re.findall(r"`(\w+)`", row[0])}


def test_every_training_argument_is_in_the_table():
    arguments = {item.name for item in dataclasses.fields(SentenceTransformerTrainingArguments) if item.init}
    assert sorted(arguments - THEIRS) == []


@pytest.mark.parametrize("module", [losses, evaluation])
def test_every_loss_and_evaluator_is_in_the_table(module):
    assert sorted(set(module.__all__) - THEIRS) == []


@pytest.mark.parametrize("page", PAGES)
def test_options_of_ours_exist(page):
    groups = {path.name for path in config_dir("conf").iterdir() if path.is_dir()}
    named = {
        found for row in PAGES[page] for found in re.findall(r"\b(\w+)=(\w+)", row[1]) if found[0] in groups
    }
    assert len(named) > 3
    assert [pair for pair in named if not (config_dir("conf") / pair[0] / f"{pair[1]}.yaml").exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_settings_of_ours_exist(page):
    keys = {key for row in PAGES[page] for key in re.findall(r"`([a-z_]+\.[a-z_]+)`", row[1])}
    sections = re.split(r"^## `?", (DOCS / "configuration.md").read_text("utf-8"), flags=re.MULTILINE)
    assert len(keys) > 8
    for key in keys - {"logger.project"}:  # of wandb; the page of settings has a test of its own
        group, _, name = key.partition(".")
        assert any(f"| `{name}` |" in text for text in sections if text.startswith((group, "The run"))), key


def test_rows_of_flagembedding_are_read_as_its_page_says(tmp_path):
    page = (DOCS / "coming_from_flagembedding.md").read_text("utf-8")
    (rows,) = re.findall(r"^```json\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "rows.jsonl").write_text(rows, "utf-8")
    first, second = read_examples(tmp_path / "rows.jsonl")
    assert first.positives == ("Track a parcel", "Delivery times")
    assert first.negatives == ("Return an item",)
    assert first.prompts.query == "Represent this sentence: "
    assert second.teacher == (0.9, 0.1)


@pytest.mark.parametrize("name", [name for name in ELSEWHERE if name.startswith("loss=")])
def test_the_page_and_the_error_name_the_same_option(name):
    cells = [row[1] for row in ROWS if f"`{name.removeprefix('loss=')}`" in row[0]]
    assert len(cells) == 1
    assert [word for word in ELSEWHERE[name].split() if word not in cells[0]] == []
