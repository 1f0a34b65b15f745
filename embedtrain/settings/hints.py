"""The types of settings in words, with an example; what to say of a value of another type."""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from embedtrain.settings.component import Component

ONE = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
MANY = {int: "whole numbers", float: "numbers", bool: "true or false", str: "texts", list: "lists"}
EXAMPLES = {int: "2", float: "0.5", bool: "true", str: "name"}


def without_none(hint: Any) -> tuple[Any, bool]:  # noqa: ANN401
    """A type without its `| None`, and whether it had one."""
    if get_origin(hint) not in (Union, types.UnionType):
        return hint, False
    rest = [part for part in get_args(hint) if part is not type(None)]
    return (rest[0] if len(rest) == 1 else hint), type(None) in get_args(hint)


def mistyped(error: Exception, schema: type, words: Sequence[str] = ()) -> str | None:
    """The sentence for a value that does not fit its key, None where the key is none of the schema's.

    Args:
        error: of OmegaConf, whose text or `full_key` names the key.
        schema: the dataclass of all keys.
        words: what stood on the command line, KEY=VALUE each.
    """
    lines = str(error).splitlines()
    told = next((line.partition("full_key: ")[2] for line in lines if "full_key: " in line), "")
    place = str(getattr(error, "full_key", "") or told)
    found = re.match(r"[\w.]+", place)
    hint = None if found is None else hint_of(schema, found[0].split("."))
    if found is None or hint is None:
        return None
    key = found[0]
    came = re.match(r"Value '(.*?)' ", lines[0])
    wanted, example = f"{key} must be {described(hint)}, e.g.", _example(hint)
    word = next((word for word in reversed(words) if word.lstrip("+").partition("=")[0] == key), None)
    if word is None:
        return f"{wanted} {example}" + (f", got {came[1]!r}" if came else "")
    culprit = f"{came[1]!r} does not fit: " if came and "[" in place else ""
    return f"{word}: {culprit}{wanted} {key}={example}"


def described(hint: Any) -> str:  # noqa: ANN401
    """A type in words: "a list of whole numbers, or null"."""
    inner, optional = without_none(hint)
    if inner is Component:
        text = "a mapping"
    elif get_origin(inner) is Literal:
        text = f"one of {', '.join(get_args(inner))}"
    elif dataclasses.is_dataclass(inner):
        text = f"the keys {', '.join(field.name for field in dataclasses.fields(inner))}"
    elif get_origin(inner) is list:
        text = f"a list of {_many(get_args(inner)[0])}"
    elif get_origin(inner) is dict:
        text = "a mapping"
    else:
        text = ONE.get(inner, "a value")
    return f"{text}, or null" if optional else text


def _many(hint: Any) -> str:  # noqa: ANN401
    if get_origin(hint) is list:
        return f"lists of {_many(get_args(hint)[0])}"
    return "words" if get_origin(hint) is Literal else MANY.get(hint, "values")


def _example(hint: Any) -> str:  # noqa: ANN401
    inner, _ = without_none(hint)
    if get_origin(inner) is Literal:
        return str(get_args(inner)[0])
    if inner is Component:
        return "{name: name}"
    if dataclasses.is_dataclass(inner):
        first = dataclasses.fields(inner)[0].name
        return f"{{{first}: {_example(get_type_hints(inner)[first])}}}"
    if get_origin(inner) is list:
        item = _example(get_args(inner)[0])
        return f"[{item},{item.replace('2', '4')}]" if item.strip("[],2") != item else f"[{item}]"
    if get_origin(inner) is dict:
        return "{name: name}"
    return EXAMPLES.get(inner, "VALUE")


def hint_of(schema: type, path: Sequence[str]) -> Any:  # noqa: ANN401
    """The type of a key inside a dataclass; None where there is no such key."""
    hint: Any = schema
    for name in path:
        hint, _ = without_none(hint)
        if hint is Component or not dataclasses.is_dataclass(hint):
            return None
        hint = get_type_hints(hint).get(name)
    return hint
