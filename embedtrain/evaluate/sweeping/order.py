"""Which task comes first: the longest, so that no long one is left for the end, alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask


def longest_first(tasks: Sequence[AbsTask]) -> list[AbsTask]:
    """The tasks by the characters they hold, most first; those of unknown size before all others."""
    return sorted(tasks, key=lambda task: -characters(task))


def characters(task: AbsTask) -> float:
    """About how many characters a task has: by the statistics mteb ships, or by the size of local files."""
    files: Mapping[str, tuple[Path, ...]] | None = getattr(task, "files", None)
    if files:
        return float(sum(_bytes(path) for parts in files.values() for path in parts))
    statistics = task.metadata.descriptive_stats
    return sum(_lengths(statistics)) if statistics else float("inf")


def _bytes(path: Path) -> int:
    if path.is_dir():
        return sum(part.stat().st_size for part in path.rglob("*.arrow"))
    return path.stat().st_size if path.exists() else 0


def _lengths(node: object) -> Iterator[float]:
    """The `total_text_length` numbers of statistics, at any depth."""
    if not isinstance(node, Mapping):
        return
    for key, value in node.items():
        if key == "total_text_length" and isinstance(value, (int, float)):
            yield float(value)
        elif key != "hf_subset_descriptive_stats":  # the same texts, by language
            yield from _lengths(value)
