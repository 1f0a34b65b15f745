"""What a check found: a level, a sentence, the places, the cure, the numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

Level = Literal["ok", "note", "warning", "error"]
LEVELS: tuple[Level, ...] = get_args(Level)
SHOWN = 5  # examples of one finding


class Finding(NamedTuple):
    """One thing that was looked at."""

    check: str  # which check: rows, duplicates, ...
    level: Level
    message: str
    cure: str = ""  # what to do, unless it is ok
    examples: tuple[str, ...] = ()  # with their places
    facts: Mapping[str, Any] = {}  # numbers, for those who read the JSON

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return self._asdict() | {"examples": list(self.examples), "facts": dict(self.facts)}


def finding(
    check: str, level: Level, message: str, cure: str = "", examples: Iterable[str] = (), /, **facts: object
) -> Finding:
    """A finding with its first examples, and with its cure unless it is ok."""
    return Finding(check, level, message, "" if level == "ok" else cure, tuple(examples)[:SHOWN], facts)


def graded(amount: float, much: float) -> Level:
    """Nothing is ok, some is a note, `much` and more is a warning."""
    return "ok" if not amount else "warning" if amount >= much else "note"


def worst(findings: Iterable[Finding]) -> Level:
    """The worst level of all; ok when there is none."""
    return max((finding.level for finding in findings), key=LEVELS.index, default="ok")


def counted(findings: Iterable[Finding]) -> dict[Level, int]:
    """How many there are of each level."""
    levels = [finding.level for finding in findings]
    return {level: levels.count(level) for level in LEVELS}


def clip(text: str, most: int = 60) -> str:
    """The beginning of a text in quotes, on one line."""
    line = " ".join(text.split())
    return repr(line if len(line) <= most else line[: most - 3] + "...")


def percent(part: float, whole: float) -> str:
    """A share as a text, as exact as its size asks for."""
    share = 100 * part / whole if whole else 0.0
    return f"{share:.0f} %" if share >= 10 or share == 0 else f"{share:.2g} %"


def spread(values: Sequence[float]) -> dict[str, float]:
    """Least, median and most of some numbers, at least one."""
    ordered = sorted(values)
    return {"min": ordered[0], "median": ordered[len(ordered) // 2], "max": ordered[-1]}
