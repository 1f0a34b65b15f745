"""Texts of rows, models and runs where they are shown: they stay text in every medium.

Names of tasks and runs, prompts and messages may be anybody's. None of them colours or rewrites a terminal,
makes a link or a heading in a card, a formula in a spreadsheet or in a picture, or code in an example.
"""

from __future__ import annotations

import re
from hashlib import sha256

from rich.table import Table
from rich.text import Text

# Control characters but tab and line break, marks that turn the direction of writing, halves of characters.
UNSHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
MARKUP = re.compile(r"([\\`*_{}\[\]()<>#!|~&$])")
LONGEST = 100  # characters of a file's name that come from a text
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet computes when a cell begins with it


def terminal(text: str) -> str:
    r"""The text with control characters written out, `\x1b` for an escape; line breaks stay."""
    return UNSHOWN.sub(_written_out, text)


def styled(text: str, style: str = "") -> Text:
    """The text for rich, in one style: brackets are no markup."""
    return Text(terminal(text), style)


def add_row(table: Table, *cells: str | Text) -> None:
    """Add a row to a table of rich; what has a style already stays as it is."""
    table.add_row(*(text if isinstance(text, Text) else styled(text) for text in cells))


def markdown(text: str) -> str:
    """The text inside a line of Markdown or a cell of its tables; HTML is no HTML in it."""
    return MARKUP.sub(r"\\\1", _line(text))


def csv_cell(text: str) -> str:
    """The text for a file that spreadsheets open: an apostrophe before what would be a formula."""
    return f"'{_line(text)}" if text.startswith(FORMULA) else _line(text)


def picture(text: str) -> str:
    """The text for matplotlib: dollars begin no formula."""
    return _line(text).replace("$", r"\$")


def python_string(text: str) -> str:
    """A Python literal in double quotes that is this text."""
    inner = repr(f'{text}"')[1:-2]  # a double quote inside makes the outer ones single
    return '"' + inner.replace('"', r"\"") + '"'


def _line(text: str) -> str:
    return terminal(" ".join(text.splitlines()))


def _written_out(letter: re.Match[str]) -> str:
    number = ord(letter[0])
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


def plain_name(text: str) -> str:
    """The text with a dash for whatever is no letter of ASCII, digit, dot, dash or underscore."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)


def file_name(text: str) -> str:
    """The same, shortened, with a hash where it is not the text itself: no two texts share a name."""
    plain = plain_name(text)[:LONGEST]
    if plain == text and plain.strip("."):
        return plain
    return f"{plain}-{sha256(text.encode(errors='surrogatepass')).hexdigest()[:8]}"
