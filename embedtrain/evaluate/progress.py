"""What a sweep tells while it runs, and a terminal bar that shows it."""

from __future__ import annotations

from types import TracebackType
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Tick(NamedTuple):
    """The state of a sweep after a batch of texts or a cell."""

    task: str
    cells_done: int  # of this task
    cells: int
    texts: int  # distinct texts of this task encoded so far
    found: int = 0  # texts of this task whose vectors were in the store already

    @property
    def told(self) -> str:
        """Where its vectors came from, in words."""
        parts = [f"{self.texts:,} texts encoded"] if self.texts else []
        parts += [f"{self.found:,} found in the store"] if self.found else []
        return ", ".join(parts) or "nothing to encode"


class SweepBar:
    """One line a task: name, cells done, texts encoded, time. Use as a context and pass it as `progress`."""

    def __init__(self, console: Console | None = None) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("cells · {task.fields[told]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._lines: dict[str, TaskID] = {}

    def __enter__(self) -> SweepBar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, tick: Tick) -> None:
        """Shows the new state."""
        if tick.task not in self._lines:
            self._lines[tick.task] = self._progress.add_task(tick.task, total=tick.cells, told="")
        self._progress.update(self._lines[tick.task], completed=tick.cells_done, told=tick.told)
