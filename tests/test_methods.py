"""The pages of docs/methods name what exists, and every golden value."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from embedtrain.settings.places import config_dir
from embedtrain.settings.signatures import definition_of

ROOT = Path(__file__).parents[1]
PAGES = {path.stem: path.read_text("utf-8") for path in sorted((ROOT / "docs/methods").glob("*.md"))}
GOLDEN = {path.stem for path in (ROOT / "tests/golden").glob("*.npz")}
GROUPS = {path.name: {o.stem for o in path.glob("*.yaml")} for path in config_dir("conf").glob("*/")}
MUST_NAME = (
    "plan",
    "loss",
    "distill",
    "selection",
    "gradcache",
    "method",
)  # every option of these is on some page
ELSEWHERE = {"full", "scheduled", "none", "weighted_sum"}  # no method of a paper


def options_of(text):
    named = re.findall(rf"(?<![.\w])({'|'.join(GROUPS)})=(\w+)", text)
    return {(group, option) for group, option in named if not option.isdigit()}


@pytest.mark.parametrize("page", PAGES)
def test_modules_and_classes_exist(page):
    names = re.findall(r"`(embedtrain(?:\.\w+)+)`", PAGES[page])
    assert names
    for name in names:
        module, _, last = name.rpartition(".")
        if last[0].isupper():
            definition_of(module, last)
        else:
            assert find_spec(name), name


@pytest.mark.parametrize("page", PAGES)
def test_options_exist(page):
    assert [(group, name) for group, name in options_of(PAGES[page]) if name not in GROUPS[group]] == []


@pytest.mark.parametrize("group", MUST_NAME)
def test_every_option_of_a_method_is_on_a_page(group):
    named = {option for page in PAGES.values() for of, option in options_of(page) if of == group}
    assert GROUPS[group] - named - ELSEWHERE == set()


def test_every_golden_value_is_on_a_page():
    text = "\n".join(PAGES.values())
    assert {name for name in GOLDEN if f"`{name}`" not in text} == set()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_formulas_code_and_tests(page):
    assert "```text" in PAGES[page]
    assert {"## In the code", "## Tests"} <= set(PAGES[page].splitlines())
    assert re.search(r"`tests/[\w/]+\.py`", PAGES[page])
