"""Whether code of a model may run: only where the user's own words say so, never a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from embedtrain.types import InputError

KEY = "trust_remote_code"
Place = tuple[str | int, ...]


def check_trusted(node: Mapping[str, Any], is_said: Callable[[Place], bool]) -> None:
    """Check that everything that a config trusts was said by the user.

    Args:
        node: plain values, of a recipe, an option or a whole config; interpolations count as true.
        is_said: whether the user said it of a place.

    Raises:
        InputError: naming the first place of which the user said nothing.
    """
    for place in _trusting(node, ()):
        if not is_said(place):
            name = dotted(place)
            raise InputError(
                f"a recipe or option sets {name}, which would run code in the folder of a model. Only you "
                f"can allow that: read the code, and say {name}=true yourself; or remove it from the file"
            )


def dotted(place: Place) -> str:
    """A place as overrides name it."""
    return ".".join(map(str, place))


def said_by_words(words: Sequence[str]) -> Callable[[Place], bool]:
    """Whether an override of a command line says so of a place: by its key, or in a value around it."""
    split = [word.lstrip("+").partition("=") for word in words]

    def is_said(place: Place) -> bool:
        name = dotted(place)
        return any(key == name or (name.startswith(f"{key}.") and KEY in value) for key, _, value in split)

    return is_said


def said_by_keywords(given: Mapping[str, Any]) -> Callable[[Place], bool]:
    """Whether keywords of a function have a value there."""

    def is_said(place: Place) -> bool:
        node: Any = given
        for part in place:
            if not isinstance(node, Mapping) or part not in node:
                return False
            node = node[str(part)]
        return True

    return is_said


def _trusting(node: Any, place: Place) -> Iterator[Place]:  # noqa: ANN401 - walks any plain container
    if isinstance(node, Mapping):
        for key, value in node.items():
            here = (*place, str(key))
            if key == KEY and value is not None and value is not False:
                yield here
            yield from _trusting(value, here)
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            yield from _trusting(value, (*place, number))
