"""The arguments of what a component names, from the object or from its source; calls that check theirs."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

from embedtrain.files.atomic import plain_error
from embedtrain.types import InputError

ROOT = Path(__file__).resolve().parents[2]
Given = ParamSpec("Given")
Result = TypeVar("Result")
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
