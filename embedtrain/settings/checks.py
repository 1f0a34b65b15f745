"""Checks that dataclasses of settings share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args, get_origin, get_type_hints

from embedtrain.types import InputError


@dataclass(frozen=True, kw_only=True)
class Words:
    """Settings that choose by a word are checked against the words that there are."""

    def __post_init__(self) -> None:
        """Raise InputError for another word."""
        for name, words in _words(type(self)).items():
            value = getattr(self, name)
            for word in value if isinstance(value, list) else [value]:
                if word not in words:
                    raise InputError(f"{name} must be one of {', '.join(words)}, got {word!r}")


def _words(kind: type) -> dict[str, tuple[str, ...]]:
    """The words of the fields that have some, of one word or a list of them."""
    words = {}
    for name, hint in get_type_hints(kind).items():
        one = get_args(hint)[0] if get_origin(hint) is list else hint
        if get_origin(one) is Literal:
            words[name] = get_args(one)
    return words


def at_least_one(**counts: int | None) -> None:
    """Raise InputError for a number below 1; None is no number."""
    for name, count in counts.items():
        if count is not None and count < 1:
            raise InputError(f"{name} must be 1 or more, got {count}")
