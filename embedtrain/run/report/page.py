"""What `embedtrain-report` writes or serves, from its settings."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import embedtrain
from embedtrain.files.atomic import write_text
from embedtrain.files.owned import require_own_text
from embedtrain.reporting.page.facts import Facts, run_facts
from embedtrain.reporting.page.html import BEGIN, page_data, page_html, plotly_script
from embedtrain.reporting.page.serve import PageServer
from embedtrain.run.report.significance import tests_of
from embedtrain.settings.commands import ReportSettings
from embedtrain.settings.names import nearest
from embedtrain.types import InputError

NAMED = 3  # runs whose names make that of the folder
ITEMS = ("scores.jsonl", "verdict.json", "items/**/*.npz")  # what tests of significance depend on
READ = ("*.*", "stages/*/*.*", "model/*.json", "map/*.parquet", "items/**/*.npz")


class Written(NamedTuple):
    """What a report left on the disk."""

    page: Path
    notes: list[str]  # what could not be read, a line each


def write_report(settings: ReportSettings) -> Written:
    """The page of the runs as one file.

    Raises:
        InputError: a folder that does not exist, a file in the place that is not ours, plotly is missing.
    """
    folders = _folders(settings.runs)
    page = _place(settings, folders) / "report.html"
    require_own_text(page, BEGIN)
    plotly_script()
    data = _data(settings, folders, {})
    write_text(page, page_html(data))
    notes = [f"{Path(run['folder']).name}: {text}" for run in data["runs"] for text in run["problems"]]
    return Written(page, list(dict.fromkeys(notes)))  # models of one folder share them


@contextmanager
def serving(settings: ReportSettings) -> Iterator[PageServer]:
    """A server of the page; whoever asks it gets what the folders hold then.

    Raises:
        InputError: a folder that does not exist, a port in use, plotly is missing.
    """
    folders = _folders(settings.runs)
    plotly_script()

    known: dict[str, Facts] = {}  # the tests of what the folders held, which training rarely changes

    def data(state: str) -> Facts:
        return _data(settings, folders, known, live=True, state=state)

    with PageServer(settings.port, lambda: _state(folders), data) as server:
        yield server


def _data(
    settings: ReportSettings,
    folders: Sequence[Path],
    known: dict[str, Facts],
    *,
    live: bool = False,
    state: str = "",
) -> Facts:
    now = _state(folders, ITEMS)
    runs = [facts for folder in folders for facts in run_facts(folder)]
    if now not in known:
        known.clear()
        known[now] = tests_of(runs, settings.resamples)
    tests = known[now]
    for place, (run, rows) in enumerate(zip(runs, tests["before"], strict=True)):
        run["tests"] = rows
        run["missing"]["tests"] = tests["missing"].get(place, run["missing"]["tests"])
    return page_data(runs, embedtrain.__version__, tests, live=live, state=state)


def _folders(texts: Sequence[str]) -> list[Path]:
    """The folders, each once. Raises InputError naming the nearest, if one does not exist."""
    found: dict[Path, Path] = {}
    for text in texts:
        path = Path(text).expanduser()
        if not path.is_dir():
            there = [str(each) for each in path.parent.glob("*/")]
            raise InputError(f"{text}: there is no such folder{nearest(text, there)}")
        found.setdefault(path.resolve(), path)
    return list(found.values())


def _place(settings: ReportSettings, folders: Sequence[Path]) -> Path:
    if settings.output is not None:
        return Path(settings.output).expanduser()
    names = [folder.resolve().name[:60] for folder in folders]
    rest = [f"{len(names) - NAMED}-more"] if len(names) > NAMED else []
    return Path(settings.output_root) / "-".join(["report", *names[:NAMED], *rest])


def _state(folders: Sequence[Path], patterns: Sequence[str] = READ) -> str:
    """Changes whenever a file that the page reads does."""
    seen = []
    for folder in folders:
        every = (
            path for pattern in patterns for path in folder.glob(pattern) if not path.name.startswith(".")
        )
        for path in sorted(every):
            try:
                facts = path.stat()
            except OSError:
                continue  # it was replaced just now: its successor is seen the next time
            seen.append((str(path), facts.st_mtime_ns, facts.st_size))
    return hashlib.sha256(repr(seen).encode()).hexdigest()[:16]
