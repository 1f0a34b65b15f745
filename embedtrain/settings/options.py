"""Settings from keywords instead of a command line: the same groups, options and recipes, without Hydra."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml

from embedtrain.files.reading import read_yaml
from embedtrain.settings.component import TARGET, Component
from embedtrain.settings.compose import effective, from_node
from embedtrain.settings.hints import without_none
from embedtrain.settings.names import nearest
from embedtrain.settings.places import config_dir, recipe_names
from embedtrain.settings.trusted import check_trusted, said_by_keywords
from embedtrain.types import InputError

Settings = TypeVar("Settings")
OPTION = "option"  # in a mapping: the option that the other keys change


def settings_from(kind: type[Settings], command: str, keys: Mapping[str, Any]) -> Settings:
    """The settings of a command, every key as on its command line.

    Args:
        kind: the dataclass of the command.
        command: its file in conf/.
        keys: a group takes the name of an option, a mapping of settings (`option` names the option that they
            change, the default one when left out), a `Component`, a dataclass of settings, or None. `recipe`
            starts from a file of recipes/.

    Raises:
        InputError: for a key, option or value that does not exist, with the nearest one that does.
    """
    given = _plain(dict(keys), "")
    node = _of_choices(_read(config_dir("conf") / f"{command}.yaml").get("defaults", []))
    if (recipe := given.pop("recipe", None)) is not None:
        node = _with_recipe(node, str(recipe))
    check_trusted(node, said_by_keywords(given))
    known = [item.name for item in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for key, value in given.items():
        if key not in known:
            raise InputError(f"unknown setting '{key}'{nearest(key, known)} There are: {', '.join(known)}")
        node[key] = _chosen(key, value, node.get(key), _is_group(kind, key))
    return from_node(kind, {key: value for key, value in node.items() if value is not None})


def _plain(value: Any, where: str) -> Any:  # noqa: ANN401 - whatever Python has
    """Values of numpy and torch as Python's own, in mappings and lists too."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise InputError(f"{where}: a key must be a text, got {key!r}")
        return {key: _plain(item, f"{where}.{key}" if where else key) for key, item in value.items()}
    if isinstance(value, list | tuple | range | set | frozenset):
        items = sorted(value) if isinstance(value, set | frozenset) else value
        return [_plain(item, f"{where}[{number}]") for number, item in enumerate(items)]
    if isinstance(value, Path):
        return str(value)
    return value.tolist() if hasattr(value, "tolist") else value


def option(group: str, name: str, where: str = "") -> dict[str, Any]:
    """What conf/GROUP/NAME.yaml says; nothing for `none`. `where` is what a message calls the group.

    Raises:
        InputError: naming the nearest option, where there is none of that name.
    """
    place, folder = where or group, config_dir("conf") / group
    if place == "data" and Path(name).exists() and not (folder / f"{name}.yaml").exists():
        raise InputError(f"data={name} is a group; give your rows as data.train={name}")
    return _file(folder, name, f"{place}={name}", f"{place}={name}")


def _with_recipe(node: Mapping[str, Any], name: str) -> dict[str, Any]:
    known = recipe_names()
    _check_known(name, known, f"recipe '{name}'")
    choices, layers = _recipe(name)
    result = {**node, **choices}
    for layer in layers:
        result = merged(result, layer)
    return result


def _recipe(name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The options that a recipe and those below it choose, and what each says besides, the lowest first."""
    recipe = _read(config_dir("recipes") / f"{name}.yaml")
    entries = recipe.pop("defaults", [])
    below: dict[str, Any] = {}
    layers: list[dict[str, Any]] = []
    for entry in entries:
        if isinstance(entry, str) and entry.removeprefix("/") not in ("train", "_self_"):
            choices, inner = _recipe(entry.removeprefix("/"))
            below |= choices
            layers += inner
    return below | _of_choices(entries), [*layers, recipe]


def _file(folder: Path, name: str, what: str, path: str | None = None) -> dict[str, Any]:
    """What a YAML file of a folder says; InputError with the nearest one where there is none of that name."""
    _check_known(name, sorted(file.stem for file in folder.glob("*.yaml")), what, path)
    return _read(folder / f"{name}.yaml")


def _check_known(name: str, known: list[str], what: str, path: str | None = None) -> None:
    if name not in known:
        raise InputError(f"{what} does not exist{nearest(name, known, path)} There are: {', '.join(known)}")


def _of_choices(entries: list[Any]) -> dict[str, Any]:
    """Groups and options of a list of Hydra's defaults."""
    found = {}
    for entry in entries:
        if isinstance(entry, Mapping):
            for group, name in entry.items():
                group = str(group).removeprefix("override ").strip().removeprefix("/")
                found[group] = option(group, str(name))
    return found


def _chosen(key: str, value: Any, default: Any, group: bool) -> Any:  # noqa: ANN401
    if isinstance(value, Component):
        return value.given()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return effective(value)
    if not group:
        return (
            merged(default, value) if isinstance(value, Mapping) and isinstance(default, Mapping) else value
        )
    return chosen_option(key, value, default)


def chosen_option(key: str, value: Any, before: Any, where: str = "") -> dict[str, Any]:  # noqa: ANN401
    """What a group is: an option by its name, settings over those before, a class with its own; None is none.

    Args:
        key: the group.
        value: what is said of it.
        before: what it is where nothing is said.
        where: what an error calls it; `key` by default.

    Raises:
        InputError: for an option that there is not, or a value of another kind.
    """
    if value is None:
        return {}
    if isinstance(value, str):
        return option(key, value, where)
    if not isinstance(value, Mapping):
        raise InputError(
            f"{where or key} takes the name of an option or a mapping of settings, got {value!r}"
        )
    changes = {name: item for name, item in value.items() if name != OPTION}
    if TARGET in changes:
        return changes
    start = option(key, str(value[OPTION]), where) if OPTION in value else before or {}
    return merged(start, changes)


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """One mapping over another; mappings inside are merged, unless they choose another class."""
    result = dict(under)
    for key, value in over.items():
        below = result.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping) and TARGET not in value:
            result[key] = merged(below, value)
        else:
            result[key] = value
    return result


def is_group(key: str) -> bool:
    """Whether conf/ has options of that name."""
    return (config_dir("conf") / key).is_dir()


def _is_group(kind: type, key: str) -> bool:
    inner, _ = without_none(get_type_hints(kind)[key])
    return inner is Component or is_group(key)


class _Numbers(yaml.SafeLoader):
    """Reads 1e-4 as a number, as Hydra does."""


_Numbers.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d[\d_]*(\.[\d_]*)?[eE][-+]?\d+"), list("-+0123456789")
)


def _read(path: Path) -> dict[str, Any]:
    content = read_yaml(path, "Write it again", _Numbers)
    return content if isinstance(content, dict) else {}
