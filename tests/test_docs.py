"""docs/configuration.md names every setting with its default, and the links of all pages lead somewhere."""

import dataclasses
import importlib
import inspect
import re
from pathlib import Path

import pytest
import yaml

from embedtrain.settings.commands import (
    CompareSettings,
    DataSettings,
    DoctorSettings,
    EvaluateSettings,
    EvaluationSettings,
    ExportSettings,
    MineSettings,
    ReportSettings,
    TrainerSettings,
    TrainSettings,
)
from embedtrain.settings.component import GIVEN_BY_THE_RUN
from embedtrain.settings.places import config_dir
from embedtrain.settings.tools import MergeSettings, PairsSettings, RotateSettings

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "configuration.md").read_text("utf-8")
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        ROOT / "benchmarks/README.md",
        ROOT / "recipes/README.md",
    ]
)
OPTIONS = sorted(config_dir("conf").glob("*/*.yaml"))
TARGETS = {  # of options and of the nodes inside them
    target
    for path in OPTIONS
    for target in re.findall(r"^[\s-]*_target_: (embedtrain\.\S+)$", path.read_text("utf-8"), re.MULTILINE)
}
SCHEMAS = {
    "## The run": TrainSettings,
    "### `evaluation`": EvaluationSettings,
    "## `data`": DataSettings,
    "## `trainer`": TrainerSettings,
    "## `embedtrain-evaluate`": EvaluateSettings,
    "## `embedtrain-compare`": CompareSettings,
    "## `embedtrain-report`": ReportSettings,
    "## `embedtrain-export`": ExportSettings,
    "## `embedtrain-merge`": MergeSettings,
    "## `embedtrain-pairs`": PairsSettings,
    "## `embedtrain-rotate`": RotateSettings,
    "## `embedtrain-mine`": MineSettings,
    "## `embedtrain-doctor`": DoctorSettings,
}


def shown(value):
    """A default as the page writes it."""
    if value is inspect.Parameter.empty or value is dataclasses.MISSING or value == "???":
        return "required"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"`{str(list(value) if isinstance(value, tuple) else value).removeprefix('torch.')}`"


def table_under(heading):
    """Setting -> default of the first table under the heading."""
    assert heading in PAGE, f"docs/configuration.md has no section {heading}"
    section = re.split(r"\n#{2,3} ", PAGE[PAGE.index(heading) + 3 :])[0]
    return dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", section, re.MULTILINE))


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_settings_of_a_group_are_those_of_the_signature(target):
    module, _, name = target.rpartition(".")
    parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    expected = {
        key: shown(item.default)
        for key, item in parameters.items()
        if key not in GIVEN_BY_THE_RUN and item.kind not in variadic
    }
    heading = re.search(rf"^### .*`{re.escape(target)}`$", PAGE, re.MULTILINE)
    assert heading, f"docs/configuration.md has no section for {target}"
    assert table_under(heading[0]) == expected


@pytest.mark.parametrize("heading", SCHEMAS)
def test_keys_of_a_command_are_those_of_its_schema(heading):
    groups = {path.parent.name for path in OPTIONS} | {"evaluation"}
    expected = {}
    for field in dataclasses.fields(SCHEMAS[heading]):
        made = field.default_factory
        default = field.default if made is dataclasses.MISSING else made()
        if field.name not in groups:
            expected[field.name] = shown(default)
    assert table_under(heading) == expected


@pytest.mark.parametrize("path", OPTIONS, ids=lambda path: f"{path.parent.name}={path.stem}")
def test_every_option_is_named(path):
    section = re.split(r"\n## ", PAGE[PAGE.index(f"\n## `{path.parent.name}`") + 4 :])[0]
    assert re.search(rf"`([\w, ]*\b)?{path.stem}\b[\w, ]*`", section)


def anchors(page):
    """The headings of a page as GitHub links to them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", page.read_text("utf-8")):
        target = page.parent / link if link else page
        assert link.startswith("http") or target.exists(), f"{page.name}: {link}"
        assert not anchor or link.startswith("http") or anchor in anchors(target), (
            f"{page.name}: {link}#{anchor}"
        )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tests_that_a_page_names_exist(page):
    files = [path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.py")]
    for name in re.findall(r"`((?:tests/)?(?:\w+/)*test_\w+\.py)`", page.read_text("utf-8")):
        assert any(f"/{file}".endswith(f"/{name}") for file in files), f"{page.name}: {name}"


def test_the_readme_has_every_group_of_a_run():
    groups = {
        next(iter(entry))
        for entry in yaml.safe_load((config_dir("conf") / "train.yaml").read_text("utf-8"))["defaults"]
        if isinstance(entry, dict)
    }
    rows = re.findall(
        r"^\| `(\w+)` \| ((?:`\w+` ?)+)(\.\.\.)? \|", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE
    )
    assert {group for group, _, _ in rows} == groups
    for group, options, more in rows:
        named = set(re.findall(r"\w+", options))
        there = {path.stem for path in OPTIONS if path.parent.name == group}
        assert named <= there if more else named == there, group


def test_the_example_of_scaling_follows_from_its_formulas():
    ranks, queries, hard, layers, width, parameters = 8, 128, 4, 3, 768, 110e6
    candidates = ranks * queries * (1 + hard)
    shown = {
        "`gather=gradient` or `values`": f"{candidates:,}",
        "`gather=none`": f"{queries * (1 + hard)}",
        "weights, gradients and AdamW": f"{16 * parameters / 1e9:.2f} GB",
        "similarities of a chunk": f"{1024 * candidates * 4 / 1e6:.0f} MB",
        "embeddings received": f"{layers * width * 4 * ranks * queries * (2 + hard) / 1e6:.1f} MB",
        "gradients sent": f"{2 * (ranks - 1) / ranks * parameters * 4 / 1e6:.0f} MB",
    }
    rows = [
        line for line in (ROOT / "docs/scaling.md").read_text("utf-8").splitlines() if line.startswith("|")
    ]
    for what, value in shown.items():
        (row,) = [row for row in rows if what in row]
        assert f" {value}" in row.split("|")[3], what


def test_every_promise_about_files_names_tests_that_exist():
    """A line of a table of docs/trust.md ends with its tests."""
    lines = (ROOT / "docs/trust.md").read_text("utf-8").splitlines()
    promises = [line for line in lines if line.startswith("| ") and not line.endswith("| test |")]
    assert len(promises) > 40
    for line in promises:
        named = re.findall(r"`(tests/[\w/]+\.py)`", line.rpartition(" | ")[2])
        assert named, line
        assert [path for path in named if not (ROOT / path).is_file()] == [], line
