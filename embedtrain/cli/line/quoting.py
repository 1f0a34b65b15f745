"""Paths and names as a shell completes them: what Hydra's grammar would misread is put into its quotes.

The grammar gives `=`, parentheses, commas and letters beyond ASCII a meaning or none, and reads 2024_01 and
1e5 as numbers.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, Quote, QuotedString
from hydra.errors import HydraException

from embedtrain.settings.hints import hint_of, without_none
from embedtrain.types import InputError


def quoted(words: Sequence[str], settings: type, *, sweep: bool) -> list[str]:
    """The words, each with Hydra's quotes around what it would misread and a person means as text.

    Args:
        words: `key=value` each.
        settings: the dataclass of the command.
        sweep: whether commas separate the values of jobs.
    """
    return [_quoted(word, settings, sweep=sweep) for word in words]


def as_typed(word: str) -> str:
    """`key=value` with the value as one text, in quotes for Hydra and for a shell."""
    key, _, value = word.partition("=")
    return shlex.quote(f'{key}="{value}"') if '"' not in value else shlex.quote(f"{key}={in_quotes(value)}")


def check_readable(words: Sequence[str]) -> None:
    """Do nothing if Hydra can read the words.

    Raises:
        InputError: naming the first that it cannot, in most cases with brackets or quotes left open.
    """
    for word in words:
        if not word.startswith("~") and _parsed(word) is None:
            if "=" not in word:
                raise InputError(f"{word}: is no KEY=VALUE; a value with a space is quoted, 'key=a value'")
            raise InputError(
                f"{word}: cannot be read. Close brackets, braces and quotes, or give it as one text: "
                f"{as_typed(word)}"
            )


def _quoted(word: str, settings: type, *, sweep: bool) -> str:
    key, equals, value = word.partition("=")
    if not equals or word.startswith("-") or value[:1] in ("", "'", '"'):
        return word
    read = _parsed(word)
    if read is None:
        if value.startswith("[") and value.endswith("]") and value.count("[") == value.count("]"):
            return _or(word, f"{key}=[{_each(value[1:-1])}]")
        if value.startswith(("[", "{")):
            return word  # a bracket that nothing closes
        if sweep and "," in value and not Path(value).exists():
            return _or(word, f"{key}={_each(value)}")
        return f"{key}={in_quotes(value)}"
    found = read.value()
    if isinstance(found, ChoiceSweep):
        return f"{key}={in_quotes(value)}" if found.simple_form and Path(value).exists() else word
    other = isinstance(found, bool | int | float | str) and found != value  # a number, or spaces left out
    texts = without_none(hint_of(settings, key.lstrip("+").split(".")))[0] is str
    return f"{key}={in_quotes(value)}" if other and (texts or Path(value).exists()) else word


def _each(values: str) -> str:
    """Values between commas, those that cannot be read in quotes."""
    parts = values.split(",")
    return ",".join(in_quotes(part) if part and _parsed(f"key={part}") is None else part for part in parts)


def _or(word: str, better: str) -> str:
    return word if _parsed(better) is None else better


def _parsed(word: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None


def in_quotes(value: str) -> str:
    """The text in the quotes of Hydra's grammar, in which a backslash before a quote escapes."""
    quote = Quote.double if "'" in value else Quote.single
    return QuotedString(value, quote).with_quotes()
