"""What a command shows on stderr: lines, progress and durations. The first process alone shows them."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

from pytorch_lightning.utilities import rank_zero_only
from rich import progress as rich_progress
from rich.console import Console

from embedtrain.escaping import terminal

LINE_SECONDS = 30.0  # between lines of progress where there is no terminal

console = Console(stderr=True)


def is_main_process() -> bool:
    """Whether this process is the first of its command."""
    return bool(getattr(rank_zero_only, "rank", 0) == 0)


def log(text: str) -> None:
    """Print `text`, once for all processes."""
    if is_main_process():
        console.print(terminal(text), highlight=False, markup=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """Seconds as text: "4.2 s", "3 min 12 s" or "2 h 5 min"."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


class _Work(NamedTuple):
    """How far one piece of work is."""

    name: str
    done: int
    total: int
    facts: str
    begun: float  # of `time.monotonic()`
    updated: float
    bar: rich_progress.TaskID


class Progress:
    """A bar a piece of work on a terminal; elsewhere a line every 30 seconds and one when a piece ends.

    Use it as a context, or between `start` and `stop`, and call it with how far the work is.

    Args:
        steady: whether equal parts take equal times, so that the time left can be estimated.
    """

    def __init__(self, *, steady: bool = False) -> None:
        self._steady = steady
        self._works: dict[str, _Work] = {}
        self._last: _Work | None = None
        self._bars: rich_progress.Progress | None = None
        self._stopped = threading.Event()

    def __call__(self, name: str, done: int, total: int, facts: str = "") -> None:
        """Note that `done` parts of `total` of the work `name` are done; `facts` are shown beside that."""
        name, facts = terminal(name), terminal(facts)
        before = self._works.get(name)
        if before is None:
            bar = rich_progress.TaskID(0) if self._bars is None else self._bars.add_task(name, facts="")
            before = _Work(name, -1, total, "", time.monotonic(), 0.0, bar)
        now = before._replace(done=done, total=total, facts=facts, updated=time.monotonic())
        self._works[name] = self._last = now
        if self._bars is not None:
            self._bars.update(now.bar, completed=done, total=total, facts=facts)
        elif done == total != before.done:
            log(f"{_so_far(now)}, in {duration(now.updated - now.begun)}")

    def start(self) -> Progress:
        """Open the bars, or begin to print lines."""
        if not is_main_process():
            return self
        if console.is_terminal:
            left = (rich_progress.TextColumn("left"), rich_progress.TimeRemainingColumn())
            self._bars = rich_progress.Progress(
                rich_progress.TextColumn("{task.description}", markup=False),
                rich_progress.BarColumn(),
                rich_progress.MofNCompleteColumn(),
                rich_progress.TextColumn("{task.fields[facts]}", markup=False),
                rich_progress.TimeElapsedColumn(),
                *(left if self._steady else ()),
                console=console,
            )
            self._bars.start()
        else:
            threading.Thread(target=self._print_lines, daemon=True).start()
        return self

    def stop(self) -> None:
        """Close the bars, or end the lines."""
        self._stopped.set()
        if self._bars is not None:
            self._bars.stop()

    def __enter__(self) -> Progress:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _print_lines(self) -> None:
        """One line every `LINE_SECONDS`, also while one part takes longer than that."""
        while not self._stopped.wait(LINE_SECONDS):
            work = self._last
            if work is not None and work.done < work.total:
                log(_so_far(work) + (_left(work) if self._steady else ""))


def _so_far(work: _Work) -> str:
    return f"{work.name}: {work.done:,}/{work.total:,}" + (f", {work.facts}" if work.facts else "")


def _left(work: _Work) -> str:
    if not work.done:
        return ""
    each = (work.updated - work.begun) / work.done
    return f", about {duration(each * (work.total - work.done))} left"
