"""What a recipe of others may say to Hydra itself, which would build classes and loggers of any name."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from embedtrain.files.reading import DEPTH, read_yaml
from embedtrain.settings.places import is_too_long
from embedtrain.types import InputError

OWN = ("hydra.", "hydra_plugins.", "hydra._internal.", "optuna.samplers.")
ENVIRONMENT = ("env_set", "env_copy")
SHORT = 16 << 10  # bytes of a file whose lines alone nest little


def check_hydra(config: DictConfig, words: Sequence[str]) -> None:
    """Refuse what could run code or change the environment, unless the command line says so.

    Args:
        config: composed, with its `hydra` node.
        words: overrides of the command line.

    Raises:
        InputError: naming the key.
    """
    node: Any = OmegaConf.to_container(config.hydra, resolve=False)
    typed = {word.lstrip("+").partition("=")[0] for word in words}

    def is_typed(key: str) -> bool:
        return any(f"{key}.".startswith(f"{word}.") or word.startswith(f"{key}.") for word in typed)

    if not all(is_typed(f"hydra.callbacks.{name}") for name in node.get("callbacks") or ()):
        raise InputError("hydra.callbacks would run code of its own: remove it from the recipe")
    for place, value in _values(node, "hydra"):
        key = place.rpartition(".")[2]
        text = str(value)
        if key == "_target_" and not (text.startswith(OWN) or is_typed(place)):
            raise InputError(f"{place}: '{text}' is no part of Hydra: remove it from the recipe")
        logs = ".job_logging." in place or ".hydra_logging." in place
        if logs and (
            (key in ("()", "class") and not text.startswith("logging.")) or text.startswith("ext://")
        ):
            raise InputError(f"{place}: '{text}' would run code of its own: remove it from the recipe")
    for key in ENVIRONMENT:
        if node["job"].get(key) and not is_typed(f"hydra.job.{key}"):
            raise InputError(f"hydra.job.{key} may be set on the command line, not by a recipe")


def check_flags(given: Namespace) -> None:
    """Refuse places that Hydra cannot read, and YAML of others that unfolds or goes deeper than any option.

    Hydra would end with a traceback, or take the memory.

    Raises:
        InputError: naming the flag or file.
    """
    for name in ("config_dir", "config_path", "config_name"):
        _check_path(f"--{name.replace('_', '-')}", getattr(given, name) or "")
    if given.config_path and not Path(given.config_path).is_absolute():
        raise InputError(f"--config-path must be a whole path: {Path(given.config_path).resolve()}")
    for folder in filter(None, (given.config_dir, given.config_path)):
        for path in Path(folder).rglob("*.yaml"):
            if path.is_file() and (path.stat().st_size > SHORT or _is_odd(path.read_bytes())):
                read_yaml(path, "Write it without aliases")


def check_folder(config: DictConfig, *, many: bool) -> None:
    """Refuse a folder of Hydra's that cannot be made, before it ends with a traceback.

    Raises:
        InputError: naming the key.
    """
    key = "hydra.sweep.dir" if many else "hydra.run.dir"
    place = str(OmegaConf.select(config, key))
    _check_path(key, place)
    above = next(path for path in (Path(place).absolute(), *Path(place).absolute().parents) if path.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise InputError(f"{key}={place}: no folder can be made in {above}. Choose another one")


def _check_path(name: str, value: str) -> None:
    try:
        fits = "\0" not in value and not is_too_long(value)
    except UnicodeEncodeError:
        fits = False
    if not fits:
        raise InputError(f"{name} {value[:60]!a}: no file has such a name. Give another, or a shorter one")


def _is_odd(content: bytes) -> bool:
    return b"&" in content or content.count(b"[") + content.count(b"{") > DEPTH


def _values(node: Any, place: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _values(value, f"{place}.{key}")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _values(value, f"{place}.{number}")
    else:
        yield place, node
