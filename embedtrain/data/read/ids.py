"""Rows of one dataset that carry the same "id": the first one counts, whether it can be used or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from embedtrain.types import InputError


class Places(Protocol):
    """id -> the place of the first row that has it; a dict is one."""

    def setdefault(self, key: str, place: str, /) -> str:
        """As of a dict."""
        ...


class Ids:
    """The ids of the rows seen so far, and where.

    Args:
        first: where they are remembered; a dict when None.
    """

    def __init__(self, first: Places | None = None) -> None:
        self._first: Places = {} if first is None else first

    def check(self, where: str, row: Mapping[str, Any]) -> None:
        """Take the row's id down.

        Raises:
            InputError: naming both places, when another row has it.
        """
        key = id_of(row)
        if key is not None and (first := self._first.setdefault(key, where)) != where:
            raise same_id(where, key, first)


def id_of(row: Mapping[str, Any]) -> str | None:
    """The text or whole number in the field "id", written differently; None where there is neither."""
    value = row.get("id")
    if isinstance(value, str):
        return repr(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def same_id(where: str, key: str, first: str) -> InputError:
    """What to say of the second row."""
    return InputError(
        f"{where}: has the id {key[:80]} of {first}. Drop one of the two, or give each row its own id."
    )
