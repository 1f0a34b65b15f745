"""The page as one text: template, styles, scripts and data in it, and nothing that it would fetch."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from embedtrain.reporting.page.facts import Facts, shown
from embedtrain.types import InputError

ASSETS = files("embedtrain.reporting.page") / "assets"
BEGIN = "<!doctype html><!-- embedtrain report -->"  # what says that a page is ours
SCRIPTS = (  # in this order: each uses the ones before
    *("core", "downloads", "tables", "charts", "verdict", "scores", "training", "health", "map", "tests"),
    *("setup", "app"),
)


def page_html(data: Facts) -> str:
    """The whole page for `page_data`, UTF-8; a browser that opens it asks no network for anything.

    Raises:
        InputError: plotly is not installed.
    """
    style = (ASSETS / "page.css").read_text("utf-8")
    script = "\n".join((ASSETS / f"{name}.js").read_text("utf-8") for name in SCRIPTS)
    plotly = _inside_a_script(plotly_script())
    names = [run["name"] for run in data["runs"]]
    parts = {
        "policy": _policy((plotly, script), live=data["live"]),
        "title": html.escape(f"{names[0] if len(names) == 1 else f'{len(names)} runs'} · embedtrain report"),
        "css": style,
        "data": json_inside(data),
        "plotly": plotly,
        "script": script,
    }
    pieces = (ASSETS / "page.html").read_text("utf-8").split("@")
    return BEGIN + "".join(parts[piece] if number % 2 else piece for number, piece in enumerate(pieces))


def page_data(
    runs: Sequence[Facts], version: str, tests: Facts | None = None, *, live: bool = False, state: str = ""
) -> Facts:
    """What the page's script reads; texts in it are as they may be shown.

    Args:
        runs: of `run_facts`, in the order of the page.
        version: of embedtrain.
        tests: `pairs` of runs and a `note` on them, as `run/report/significance.py` makes them.
        live: whether the page is served, and asks for news.
        state: names what the folders held, as the server says it.
    """
    first = next((place for place, run in enumerate(runs) if run["cells"]), 0)
    facts = {"version": version, "runs": list(runs), "first": first, "live": live, "state": state}
    known = tests or {}
    facts |= {"pairs": known.get("pairs", []), "pairs_note": known.get("note", "")}
    data: Facts = shown(facts)
    return data


def json_inside(data: Facts) -> str:
    """JSON that stays data inside an HTML page, whatever texts it holds."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def plotly_script() -> str:
    """plotly.js as its Python package ships it.

    Raises:
        InputError: the package is not installed.
    """
    found = find_spec("plotly")
    package = Path("" if found is None or found.origin is None else found.origin).parent
    path = package / "package_data" / "plotly.min.js"
    if found is None or not path.is_file():
        raise InputError("plotly, which draws a report, is not installed: pip install 'embedtrain[report]'")
    return path.read_text("utf-8")


def _inside_a_script(code: str) -> str:
    """The same code, which cannot end the element that it is in."""
    return code.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _policy(scripts: Sequence[str], *, live: bool) -> str:
    """What a browser allows the page: these scripts, by their hash, and no request but for its own news."""
    asked = "'self'" if live else "'none'"
    digests = (base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() for code in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        f"connect-src {asked}; base-uri 'none'; form-action 'none'"
    )
