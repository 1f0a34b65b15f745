"""The arguments of what a component names, from the object or from its source; calls that check theirs.

Of their kinds only what a config writes by mistake is refused: a word for a number, a number for a list. What
an annotation says otherwise (a path, a class, a word) is the target's own to judge.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from embedtrain.files.atomic import plain_error
from embedtrain.types import InputError

ROOT = Path(__file__).resolve().parents[2]
Given = ParamSpec("Given")
Result = TypeVar("Result")
LISTS = (list, tuple, Sequence)
NUMBERS = (int, float)
_VARIADIC = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


class Signature(NamedTuple):
    """Names in their order, the defaults of those that have one, and whether any other name is taken."""

    names: tuple[str, ...]
    defaults: dict[str, Any]
    open_ended: bool


def signature_of(target: Callable[..., Any]) -> Signature:
    """The arguments of a class or function."""
    parameters = inspect.signature(target).parameters
    named = {key: item for key, item in parameters.items() if item.kind not in _VARIADIC}
    given = {key: item.default for key, item in named.items() if item.default is not inspect.Parameter.empty}
    open_ended = any(item.kind is inspect.Parameter.VAR_KEYWORD for item in parameters.values())
    return Signature(tuple(named), given, open_ended)


def names_in_source(target: str) -> tuple[str, ...] | None:
    """The arguments of a class or function of embedtrain; None where the source does not say.

    Torch is not imported for it, so a mistyped setting is answered at once.
    """
    module, _, name = target.rpartition(".")
    definition = definition_of(module, name)
    if isinstance(definition, ast.ClassDef):
        methods = [item for item in definition.body if isinstance(item, ast.FunctionDef)]
        definition = next((item for item in methods if item.name == "__init__"), None)
    if not isinstance(definition, ast.FunctionDef) or definition.args.kwarg is not None:
        return None
    every = definition.args
    names = [item.arg for item in (*every.posonlyargs, *every.args, *every.kwonlyargs)]
    return tuple(name for name in names if name != "self")


def is_class(target: str) -> bool:
    """Whether a dotted name is a public class of embedtrain; nothing is imported."""
    module, _, name = target.rpartition(".")
    return not name.startswith("_") and isinstance(definition_of(module, name), ast.ClassDef)


def definition_of(module: str, name: str) -> ast.stmt | None:
    """Where a module, or what it imports the name from, defines it."""
    place = ROOT.joinpath(*module.split("."))
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    if not f"{module}.".startswith("embedtrain.") or not file.is_file():
        return None
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return node
        if isinstance(node, ast.ImportFrom) and node.module and any(item.name == name for item in node.names):
            return definition_of(node.module, name)
    return None


def plain(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """The same function, whose errors of arguments and of the disk are an InputError."""

    @wraps(function)
    def called(*given: Given.args, **named: Given.kwargs) -> Result:
        try:
            inspect.signature(function).bind(*given, **named)
        except TypeError as error:
            raise InputError(f"{function.__name__}{inspect.signature(function)}: {error}") from error
        try:
            return function(*given, **named)
        except (OSError, MemoryError, RecursionError) as error:
            raise plain_error(error, function.__name__) from error

    return called


def misfit(target: Callable[..., Any], key: str, value: object) -> str | None:
    """What argument `key` of a class or function must be, where `value` is of another kind; else None."""
    hints = _hints(target)
    return _misfit(hints[key], value) if key in hints else None


def _hints(target: Callable[..., Any]) -> Mapping[str, Any]:
    """The annotations of its arguments; none where they cannot be read."""
    called = target.__init__ if inspect.isclass(target) else target
    try:
        return get_type_hints(called)
    except (NameError, TypeError, AttributeError):  # names that only a type checker imports
        return {}


def _misfit(hint: object, value: object) -> str | None:
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    plain = [kind for kind in kinds if kind is not NoneType]
    if value is None or not plain:
        return None
    lists = [kind for kind in plain if get_origin(kind) in LISTS]
    if len(plain) == len(lists) == 1 and isinstance(value, str | int | float):
        return "a list"
    if len(plain) == 1 and lists and isinstance(value, list | tuple):
        entry = get_args(plain[0])
        each = (_misfit(entry[0], one) for one in value) if len({*entry} - {...}) == 1 else ()
        return next((f"a list of {_many(said)}" for said in each if said), None)
    if plain == [bool]:
        return None if isinstance(value, int) else "true or false"
    numbers = [kind for kind in plain if kind in NUMBERS]
    if len(numbers) == len(plain) and isinstance(value, bool | list | tuple):
        return "a number"
    return "a number" if numbers and isinstance(value, str) and not any(map(_takes_words, plain)) else None


def _many(said: str) -> str:
    return said.replace("a list", "lists", 1).replace("a number", "numbers")


def _takes_words(kind: object) -> bool:
    return get_origin(kind) is Literal or kind in (str, Path, Any, object)
