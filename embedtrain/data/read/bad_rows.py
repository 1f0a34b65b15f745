"""What becomes of a row that cannot be trained on: the run stops at it, or it is left out and reported.

    FOLDER/bad_rows.jsonl    a line for each: {"where", "reason", "rows"}
    FOLDER/quarantine.jsonl  the rows themselves as text, one a line, to be repaired and read again

The report is the state: workers, ranks and the run after a restart add to the same file, each place once. So
rows in = rows used + rows reported, however many processes read and however often.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args

from embedtrain.files import owned
from embedtrain.files.atomic import append
from embedtrain.files.locks import locked
from embedtrain.files.records import BEGIN, MAX_LINE, Raw, parsed
from embedtrain.types import InputError

logger = logging.getLogger(__name__)

Policy = Literal["error", "skip", "quarantine"]
REPORT, QUARANTINE = "bad_rows.jsonl", "quarantine.jsonl"
SHOWN = 3
Value = TypeVar("Value")


class Report(NamedTuple):
    """What was left out so far."""

    rows: int
    places: int  # lines of the report; damage to a file may be several rows
    first: tuple[str, ...]  # reasons of the first few, each naming its place


class BadRows:
    """The policy for bad rows, and the report of those left out. One for all data sets of a run.

    Args:
        policy: "error" stops at the first bad row; "skip" leaves it out and reports it; "quarantine" also
            keeps the row itself, to be repaired.
        folder: where the report is; needed unless the policy is "error". What it reports already is not
            reported again.
        max_line: most bytes of a line; a longer one is a bad row and is not read into memory.
        setting: the key that chooses the policy; with a folder, the error of a row names it.

    Raises:
        InputError: for an unknown policy, a missing folder, a limit below 1.
    """

    def __init__(
        self,
        policy: Policy = "error",
        folder: str | Path | None = None,
        *,
        max_line: int = MAX_LINE,
        setting: str = "on_bad_row",
    ) -> None:
        if policy not in get_args(Policy):
            raise InputError(f"on_bad_row must be one of {', '.join(get_args(Policy))}, got {policy!r}.")
        if policy != "error" and folder is None:
            raise InputError(f"on_bad_row={policy} needs a folder to report the rows in.")
        if max_line < 1:
            raise InputError(f"max_line must be 1 byte or more, got {max_line}.")
        self.policy = policy
        self.max_line = max_line
        self._cure = "" if folder is None else f". {setting}=skip leaves such rows out and reports them"
        self._folder = None if folder is None or policy == "error" else Path(folder)
        self.left_out = 0  # rows that this object let pass, those that others reported before too
        self._met: set[str] = set()  # their places
        self._seen: set[str] = set()
        self._first: list[str] = []
        self._rows = 0
        self._read = 0  # bytes of the report that `_seen` knows

    def add(self, raw: Raw, error: InputError) -> None:
        """Leave this row out and report it, unless it is reported already.

        Raises:
            InputError: `error`, under the policy that stops at it.
        """
        if self._folder is None:
            raise InputError(f"{str(error).rstrip('.')}{self._cure}") if self._cure else error
        if raw.where not in self._met:
            self._met.add(raw.where)
            self.left_out += raw.rows
        if raw.where in self._seen:
            return
        with self._locked() as folder:
            if raw.where in self._seen:
                return
            entry = {"where": raw.where, "reason": str(error), "rows": raw.rows}
            if self.policy == "quarantine":
                entry["kept"] = self._quarantine(folder, raw)
            append(folder / REPORT, json.dumps(entry).encode() + b"\n", flushed=False)
            self._catch_up(folder)

    def forget(self) -> None:
        """Remove the report and the rows beside it: reading begins again."""
        if self._folder is not None:
            for name in (REPORT, QUARANTINE):
                owned.remove_file(self._folder / name, self._folder)

    def summary(self) -> Report:
        """What was left out so far, by any process; logged as a warning when it is anything."""
        if self._folder is not None and (self._folder / REPORT).is_file():
            with self._locked():
                pass
        report = Report(self._rows, len(self._seen), tuple(self._first))
        if report.rows:
            logger.warning("%d rows are left out (%s in %s). The first:\n  %s",
                           report.rows, REPORT, self._folder, "\n  ".join(report.first))  # fmt: skip
        return report

    def _quarantine(self, folder: Path, raw: Raw) -> str:
        """Write the row; "whole", "beginning" or "nothing" of it was written."""
        if isinstance(raw.value, dict):
            text = json.dumps(raw.value, default=str)
        else:
            text = (raw.begin if isinstance(raw.value, InputError) else raw.value[:BEGIN]).decode(
                "utf-8", errors="backslashreplace"
            )
        if not text:
            return "nothing"
        kept = text[:BEGIN].rstrip("\r").encode("utf-8", errors="backslashreplace") + b"\n"
        append(folder / QUARANTINE, kept, flushed=False)
        whole = not isinstance(raw.value, InputError) and len(raw.value) <= BEGIN and len(text) <= BEGIN
        return "whole" if whole else "beginning"

    @contextmanager
    def _locked(self) -> Iterator[Path]:
        """The folder, while no other process writes to it and its report is known to the end."""
        assert self._folder is not None
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / REPORT).touch()
        with locked(self._folder / REPORT):
            self._catch_up(self._folder)
            yield self._folder

    def _catch_up(self, folder: Path) -> None:
        """Read what the report says beyond what is known; a line that a kill cut off ends and is left."""
        with (folder / REPORT).open("rb") as file:
            file.seek(self._read)
            news = file.read()
        if news and not news.endswith(b"\n"):
            append(folder / REPORT, b"\n", flushed=False)
            news += b"\n"
        self._read += len(news)
        for line in news.splitlines():
            try:
                entry = json.loads(line)
                where, reason, rows = entry["where"], entry["reason"], int(entry["rows"])
            except (ValueError, KeyError, TypeError):
                continue
            if where not in self._seen:
                self._seen.add(where)
                self._rows += rows
                self._first += [reason][: SHOWN - len(self._first)]


def usable(
    raws: Iterable[Raw],
    read: Callable[[str, dict[str, Any]], Value],
    refuse: Callable[[Raw, InputError], None],
) -> Iterator[Value]:
    """What `read` makes of the place and the fields of each row.

    Args:
        raws: rows, in their order.
        read: raises InputError for a row that cannot be used.
        refuse: called with a bad row and why it is one; `BadRows.add` for one.
    """
    for raw in raws:
        try:
            value = read(raw.where, parsed(raw))
        except InputError as error:
            refuse(raw, error)
        else:
            yield value
