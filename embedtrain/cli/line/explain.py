"""What Hydra says of a mistake, in one or two lines, with the nearest name and a spelling that works."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import get_type_hints

from omegaconf.errors import ConfigTypeError, ValidationError

from embedtrain.cli.line.quoting import as_typed
from embedtrain.settings.component import Component
from embedtrain.settings.hints import mistyped, without_none
from embedtrain.settings.names import nearest
from embedtrain.settings.options import is_group


def explained(
    settings: type, error: Exception, words: Sequence[str], options: Callable[[str], list[str]]
) -> str:
    """The sentence for an error of Hydra or OmegaConf.

    Args:
        settings: the dataclass of the command.
        error: what came.
        words: the overrides of the command line.
        options: names of the options of a group, own ones of `--config-dir` among them.
    """
    text = str(error.__cause__ or error)
    cause = error.__cause__ or error
    if isinstance(cause, ValidationError | ConfigTypeError):
        answer = mistyped(cause, settings, words)
        if answer is not None:
            return answer
    if match := re.search(r"Ambiguous value for argument '(.+)'", text):
        return (
            f"{match[1]}: several values are a sweep, which needs --multirun. As one text it is "
            f"{as_typed(match[1])}, as a list {match[1].partition('=')[0]}=[...]"
        )
    if text.startswith("Config group override must be"):
        return _no_option(words, options)
    if match := re.search(r"Key '([^']+)' (?:is )?not in '?([A-Za-z]+)", text):
        keys = _keys(_nested(settings).get(match[2], settings))
        path = re.search(r"full_key: (\S+)", text)
        full = path[1] if path else match[1]
        full = next((word.partition("=")[0] for word in words if word.startswith(f"{full}.")), full)
        return f"unknown config key '{full}'{nearest(match[1], keys, full)}" + _list(keys)
    if match := re.search(r"Could not find '([^']+)/([^'/]+)'", text):
        known, word = options(match[1]), f"{match[1]}={match[2]}"
        return f"{word} does not exist{nearest(match[2], known, word)}" + _list(known)
    if match := re.search(r"Could not override '([^']+)'", text):
        keys = _keys(settings)
        hint = nearest(match[1].split(".")[0], keys, match[1])
        return f"unknown config key '{match[1]}'{hint}" + _list(keys)
    lines = [line.strip() for line in text.split("Set the environment variable")[0].splitlines()]
    return "; ".join(line for line in lines if line and not line.startswith("object_type="))


def _no_option(words: Sequence[str], options: Callable[[str], list[str]]) -> str:
    """What to say of a number where the name of an option belongs."""
    numbers = [word for word in words if re.fullmatch(r"\w+=[-+.\d]+", word)]
    word = next((word for word in numbers if is_group(word.partition("=")[0])), words[-1])
    group = word.partition("=")[0]
    return f"{word}: {group} is chosen by name." + _list(options(group))


def _keys(settings: type) -> list[str]:
    return [item.name for item in fields(settings)]


def _nested(settings: type) -> dict[str, type]:
    """The dataclasses of settings inside settings, by their names."""
    inner = {without_none(hint)[0] for hint in get_type_hints(settings).values()} - {Component}
    return {kind.__name__: kind for kind in inner if isinstance(kind, type) and is_dataclass(kind)}


def _list(known: Sequence[str]) -> str:
    return f" There are: {', '.join(dict.fromkeys(known))}"
