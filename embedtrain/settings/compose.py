"""A composed config as the settings of its command, and settings as plain values with every default."""

from __future__ import annotations

import dataclasses
import math
import os
import types
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from embedtrain.settings.component import Component, plain_value
from embedtrain.settings.environment import PLACES, REFUSED, guard_environment
from embedtrain.settings.hints import mistyped, without_none
from embedtrain.settings.names import nearest
from embedtrain.settings.places import is_too_long, package_path
from embedtrain.types import InputError

Settings = TypeVar("Settings")


def schema(settings: type) -> DictConfig:
    """The structured node to store with Hydra: strict keys of checked types, open inside components."""
    guard_environment()
    node: DictConfig = OmegaConf.structured(_config_class(settings))
    for key, hint in get_type_hints(settings).items():
        if without_none(hint)[0] is Component:
            OmegaConf.set_struct(node[key], False)
    return node


def settings_of(kind: type[Settings], config: DictConfig) -> Settings:
    """The settings of a command from its composed config; `package:NAME/folder` becomes the folder's path.

    Raises:
        InputError: if a mandatory key is missing, a component has no such setting, a group that is needed
            was not chosen, a named package is not installed, or a value is out of range.
    """
    try:
        missing = sorted(OmegaConf.missing_keys(config))
        node = {} if missing else _checked(OmegaConf.to_container(config, resolve=True))
    except OmegaConfBaseException as error:
        if refused := str(error).partition("\n")[0].partition(REFUSED)[2]:
            raise InputError(refused) from error
        raise
    if missing:
        raise InputError(f"{', '.join(missing)} must be given, e.g. {missing[0]}=...")
    settings = _typed(kind, {key: value for key, value in node.items() if key != "hydra"})
    for _, value in _fields(settings):
        if isinstance(value, Component):
            value.check()
    return settings


def from_node(kind: type[Settings], node: Mapping[str, Any]) -> Settings:
    """The settings that plain values describe, checked as those of a command line.

    Raises:
        InputError: as `settings_of`, and for an unknown key or a value of another type.
    """
    _require_shapes(kind, node)
    try:
        return settings_of(kind, cast(DictConfig, OmegaConf.merge(schema(kind), dict(node))))
    except (OmegaConfBaseException, OverflowError) as error:
        place = getattr(error, "full_key", "") or ""
        if isinstance(error, ConfigKeyError) and place:
            *parents, last = place.split(".")
            known = _keys_below(kind, parents)
            listed = ", ".join(known)
            raise InputError(
                f"unknown setting '{place}'{nearest(last, known, place)} There are: {listed}"
            ) from error
        said = mistyped(error, kind) if isinstance(error, OmegaConfBaseException) else None
        raise InputError(said or (f"{place}: " if place else "") + str(error).splitlines()[0]) from error


def _require_shapes(kind: type, node: Mapping[str, Any], where: str = "") -> None:
    """Raise InputError for one value where a list or a mapping is wanted: OmegaConf names no place."""
    for key, hint in get_type_hints(kind).items():
        inner, optional = without_none(hint)
        value = node.get(key, [])
        known = list | tuple | types.NoneType if optional else list | tuple
        if get_origin(inner) is list and not isinstance(value, known):
            raise InputError(f"{where}{key} must be a list, e.g. [{value}], got {value!r}")
        if isinstance(inner, type) and _holds_settings(inner) and key in node:
            if not isinstance(value, Mapping):
                names = ", ".join(item.name for item in dataclasses.fields(inner))
                raise InputError(f"{where}{key} must be a mapping of settings ({names}), got {value!r}")
            _require_shapes(inner, value, f"{where}{key}.")


def _holds_settings(kind: type) -> bool:
    return dataclasses.is_dataclass(kind) and kind is not Component


def _keys_below(kind: type, parents: Sequence[str]) -> list[str]:
    """The settings of the dataclass at a place, as `["data"]`."""
    for name in parents:
        kind = without_none(get_type_hints(kind)[name])[0]
    return [item.name for item in dataclasses.fields(kind)]


def effective(settings: Any) -> dict[str, Any]:  # noqa: ANN401 - any dataclass of settings
    """Every setting with its value, defaults of dataclasses and signatures included, as YAML can hold it."""
    return {key: _shown(value) for key, value in _fields(settings)}


def given(settings: Any) -> dict[str, Any]:  # noqa: ANN401 - any dataclass of settings
    """The settings that are not what they are by default, as YAML can hold it."""
    chosen = {}
    defaults = {item.name: _default(item) for item in dataclasses.fields(settings)}
    for key, value in _fields(settings):
        if isinstance(value, Component):
            chosen[key] = value.given()
        elif dataclasses.is_dataclass(value):
            chosen |= {key: inner} if (inner := given(value)) else {}
        elif value != defaults[key]:
            chosen[key] = plain_value(value)
    return chosen


@cache
def _config_class(kind: type) -> type:
    """The dataclass for OmegaConf: components are open mappings, and what must be given is ???."""
    hints = get_type_hints(kind)
    made: list[tuple[str, Any, Any]] = []
    for item in dataclasses.fields(kind):
        inner, _ = without_none(hints[item.name])
        if inner is Component:
            made.append((item.name, dict[str, Any], dataclasses.field(default_factory=dict)))
        elif isinstance(inner, type) and dataclasses.is_dataclass(inner):
            nested = _config_class(inner)
            made.append((item.name, nested, dataclasses.field(default_factory=nested)))
        else:
            default = dataclasses.field(default_factory=partial(_default, item))
            made.append((item.name, _without_words(hints[item.name]), default))
    return dataclasses.make_dataclass(kind.__name__, made)


def _without_words(hint: Any) -> Any:  # noqa: ANN401
    """A type as OmegaConf knows it: of a few words, any text."""
    if get_origin(hint) is Literal:
        return str
    if get_origin(without_none(hint)[0]) is dict:
        return Any  # OmegaConf cannot merge a mapping into a typed one that is None
    return list[str] if get_origin(hint) is list and get_origin(get_args(hint)[0]) is Literal else hint


def _default(item: dataclasses.Field[Any]) -> Any:  # noqa: ANN401
    if item.default is not dataclasses.MISSING:
        return item.default
    return MISSING if item.default_factory is dataclasses.MISSING else item.default_factory()


def _fields(settings: Any) -> list[tuple[str, Any]]:  # noqa: ANN401
    return [(item.name, getattr(settings, item.name)) for item in dataclasses.fields(settings)]


def _shown(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, Component):
        return value.effective()
    return effective(value) if dataclasses.is_dataclass(value) else plain_value(value)


def _checked(value: Any, where: str = "", key: str = "") -> Any:  # noqa: ANN401 - walks any plain container
    """The same with paths in full, all texts and numbers such as can be used."""
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str):
                raise InputError(f"{where}: a key must be a text, got {name!r}")
        return {name: _checked(item, f"{where}.{name}".lstrip("."), name) for name, item in value.items()}
    if isinstance(value, list):
        return [_checked(item, f"{where}[{number}]", key) for number, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{where} must be a finite number, got {value}")
    return _text(value, where, is_place=key in PLACES) if isinstance(value, str) else value


def _text(value: str, where: str, *, is_place: bool) -> str:
    try:
        if "\0" in value or (not value.encode().strip() and is_place):
            raise ValueError
        found = os.path.expanduser(value) if is_place else value
    except ValueError as error:  # half a character, or on a command line a byte that is not UTF-8
        raise InputError(f"{where} must be a text that files can have, got {value[:60]!a}") from error
    if is_place and is_too_long(found):
        raise InputError(f"{where}={value[:60]}... is too long for a path. Give a shorter name")
    if is_place and found.startswith("~"):
        raise InputError(f"{where}={value}: no user has this name. A file or folder of it is ./{value}")
    return package_path(found) if found.startswith("package:") else found


def _typed(kind: type[Settings], node: Mapping[str, Any], where: str = "") -> Settings:
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in node.items():
        place = f"{where}{key}"
        if key not in hints:
            raise InputError(
                f"unknown setting '{place}'{nearest(key, list(hints), place)} There are: {', '.join(hints)}"
            )
        inner, optional = without_none(hints[key])
        if inner is Component:
            values[key] = None if optional and not value else Component.of(value, place)
        elif isinstance(inner, type) and dataclasses.is_dataclass(inner):
            values[key] = _typed(inner, value, f"{place}.")
        elif get_origin(inner) is dict and not isinstance(value, dict | types.NoneType):
            raise InputError(f"{place} must be a mapping, e.g. '{place}={{name: value}}', got {value!r}")
        else:
            values[key] = value
    try:
        return kind(**values)
    except InputError as error:
        raise InputError(f"{where[:-1]}: {error}" if where else str(error)) from error
