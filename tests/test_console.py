import io
import time

import pytest
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console

from embedtrain import console
from embedtrain.console import Progress, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 0 s"),
        (192, "3 min 12 s"),
        (3599.6, "1 h 0 min"),
        (7_500, "2 h 5 min"),
    ],
)
def test_a_duration_is_said_in_the_units_that_fit(seconds, text):
    assert duration(seconds) == text


@pytest.fixture
def shown(monkeypatch):
    """What is printed where there is a terminal (True) or none."""
    out = io.StringIO()

    def use(terminal):
        made = Console(file=out, width=120, force_terminal=terminal, color_system=None)
        monkeypatch.setattr(console, "console", made)
        return out

    return use


def test_a_terminal_shows_a_bar_for_each_work(shown):
    out = shown(True)
    with Progress() as progress:
        progress("mine", 3, 6, "1,234 texts encoded")
        progress("find", 6, 6)
    assert "3/6 1,234 texts encoded" in out.getvalue()
    assert "6/6" in out.getvalue()


def test_without_a_terminal_the_end_of_a_work_is_a_line(shown):
    out = shown(False)
    with Progress() as progress:
        progress("mine", 3, 6)
        progress("mine", 6, 6, "99 texts [dev]")
        progress("mine", 6, 6, "100 texts")
    assert out.getvalue() == "mine: 6/6, 99 texts [dev], in 0.0 s\n"


def test_lines_go_on_while_one_part_takes_long(shown, monkeypatch):
    out = shown(False)
    monkeypatch.setattr(console, "LINE_SECONDS", 0.01)
    with Progress(steady=True) as progress:
        progress("mine", 3, 6)
        for _ in range(500):
            if out.getvalue().count("mine: 3/6, about ") >= 2:
                break
            time.sleep(0.01)
    assert out.getvalue().count("mine: 3/6, about ") >= 2


def test_other_processes_than_the_first_show_nothing(shown, monkeypatch):
    out = shown(False)
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    with Progress() as progress:
        progress("mine", 6, 6)
        console.log("text")
    assert out.getvalue() == ""


def test_ten_thousand_pieces_are_some_lines(shown):
    out = shown(False)
    with Progress() as progress:
        for number in range(10_000):
            progress(f"task {number}", 0, 1)
            progress(f"task {number}", 1, 1)
    lines = out.getvalue().splitlines()
    assert len(lines) < 100
    assert lines[0] == "task 0: 1/1, in 0.0 s"
    assert lines[-1] == f"{10_000 - console.FEW:,} others done, the last task 9999: 1/1"


def test_ten_thousand_pieces_leave_few_bars(shown):
    shown(True)
    progress = Progress().start()
    for number in range(1_000):
        progress(f"task {number}", 1, 1)
    assert len(progress._bars.tasks) == console.FEW
    progress.stop()


def test_a_long_silence_is_broken(shown, monkeypatch):
    out = shown(False)
    monkeypatch.setattr(console, "LINE_SECONDS", 0.01)
    with console.signs_of_life():
        console.log("reading rows\nand more")
        for _ in range(500):
            if out.getvalue().count("still at work") >= 2:
                break
            time.sleep(0.01)
    lines = out.getvalue().splitlines()
    assert lines[2].startswith("reading rows: still at work, 0.")
    assert lines[3].startswith("reading rows: still at work, 0.")


def test_a_terminal_and_other_processes_need_no_sign(shown, monkeypatch):
    monkeypatch.setattr(console, "LINE_SECONDS", 0.001)
    for terminal, rank in ((True, 0), (False, 1)):
        out = shown(terminal)
        monkeypatch.setattr(rank_zero_only, "rank", rank)
        with console.signs_of_life():
            time.sleep(0.02)
        assert out.getvalue() == ""
