"""Where each id was first seen, for more ids than memory has room for."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from embedtrain.files import owned


class Places:
    """id -> the place of the first row that has it, in a file: memory has no room for all of them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._base = sqlite3.connect(path, isolation_level=None)
        self._base.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN;"
                                 "CREATE TABLE ids (id PRIMARY KEY, place) WITHOUT ROWID")  # fmt: skip

    def setdefault(self, key: str, place: str) -> str:
        """As of a dict."""
        if self._base.execute("INSERT OR IGNORE INTO ids VALUES (?, ?)", (key, place)).rowcount:
            return place
        return str(self._base.execute("SELECT place FROM ids WHERE id = ?", (key,)).fetchone()[0])

    def close(self) -> None:
        """Remove the file."""
        self._base.close()
        owned.remove_file(self._path, self._path.parent)
