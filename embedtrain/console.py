"""What a command shows on stderr: lines, progress and durations. The first process alone shows them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from lightning_utilities.core.rank_zero import rank_zero_only  # Lightning's, which takes seconds to import
from rich import progress as rich_progress
from rich.console import Console

from embedtrain.escaping import terminal

LINE_SECONDS = 30.0  # between lines of progress where there is no terminal
FEW = 20  # pieces of work whose ends are a line each, or a bar that stays; of more, a line every LINE_SECONDS

console = Console(stderr=True)
_last: deque[tuple[float, str]] = deque(maxlen=1)  # when something was printed here, and what


def is_main_process() -> bool:
    """Whether this process is the first of its command."""
    return bool(getattr(rank_zero_only, "rank", 0) == 0)


def log(text: str) -> None:
    """Print `text`, once for all processes."""
    if is_main_process():
        _last.append((time.monotonic(), text))
        console.print(terminal(text), highlight=False, markup=False, soft_wrap=True)


@contextmanager
def signs_of_life() -> Iterator[None]:
    """Inside, where there is no terminal, a line breaks every silence of `LINE_SECONDS`."""
    begun, stopped = time.monotonic(), threading.Event()

    def watch() -> None:
        while not stopped.wait(LINE_SECONDS / 6):
            when, text = _last[0]
            if time.monotonic() - when >= LINE_SECONDS:
                first = text.partition("\n")[0].partition(": still at work")[0]
                log(f"{first}: still at work, {duration(time.monotonic() - begun)} in all")

    if not console.is_terminal:
        _last.append((begun, "starting"))
        threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        stopped.set()


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

    Of more than `FEW` pieces, not every end has a line, nor every piece a bar.

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
        self._ended: list[_Work] = []
        self._unsaid, self._said_at = 0, 0.0  # ends without a line, and when the last one had one

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
        if done == total != before.done:
            self._end(now)

    def _end(self, work: _Work) -> None:
        """Show the end of a piece, unless many have ended: then some of them, and how many there were."""
        self._ended.append(work)
        if self._bars is not None:
            if len(self._ended) > FEW:
                self._bars.remove_task(self._ended[-FEW - 1].bar)
        elif len(self._ended) <= FEW or work.updated - self._said_at >= LINE_SECONDS:
            more = f"; {self._unsaid:,} others before" if self._unsaid else ""
            log(f"{_so_far(work)}, in {duration(work.updated - work.begun)}{more}")
            self._unsaid, self._said_at = 0, work.updated
        else:
            self._unsaid += 1

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
        if self._unsaid:
            log(f"{self._unsaid:,} others done, the last {_so_far(self._ended[-1])}")
            self._unsaid = 0
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
