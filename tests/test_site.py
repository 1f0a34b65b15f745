"""The documentation site builds without a warning, has a page a group and loads nothing from elsewhere."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from processes import LIMIT

from embedtrain.settings.places import config_dir

ROOT = Path(__file__).parents[1]
GROUPS = sorted({path.parent.name for path in config_dir("conf").glob("*/*.yaml")})


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("sphinx", reason="the extra `docs` is not installed")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, str(ROOT / "docs/site/make_site.py"), str(out)]
    made = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    assert made.returncode == 0, made.stderr
    return out


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_has_a_page_with_its_options(site, group):
    page = (site / f"docs/configuration_{group}.html").read_text("utf-8")
    for path in config_dir("conf").glob(f"{group}/*.yaml"):
        assert f"{group}={path.stem}" in page


def test_a_page_of_a_group_says_what_the_docstring_says(site):
    source = ast.parse((ROOT / "embedtrain/objective/losses/contrastive.py").read_text("utf-8"))
    (loss,) = [node for node in source.body if isinstance(node, ast.ClassDef) and node.name == "InfoNCE"]
    first = ast.get_docstring(loss).splitlines()[0]
    assert first in (site / "docs/configuration_loss.html").read_text("utf-8")


def test_every_page_is_in_the_contents_and_loads_nothing_from_elsewhere(site):
    pages = [path for path in site.rglob("*.html") if path.parent.name not in {"_modules", "_sources"}]
    assert len(pages) > len(GROUPS) + 15
    for page in pages:
        text = page.read_text("utf-8")
        assert not re.findall(r"<(?:script|img|link)[^>]+(?:src|href)=\"(?:https?:)?//[^\"]+\"", text), page
