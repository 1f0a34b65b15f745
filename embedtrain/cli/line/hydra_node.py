"""What a recipe of others may say to Hydra itself, which would build classes and loggers of any name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from embedtrain.files.reading import DEPTH, read_yaml
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


def check_files(folders: Sequence[str | None]) -> None:
    """Refuse YAML of others that unfolds, or goes deeper, than any option does: Hydra would take the memory.

    Raises:
        InputError: naming the file.
    """
    for folder in filter(None, folders):
        for path in Path(folder).rglob("*.yaml"):
            if path.is_file() and (path.stat().st_size > SHORT or _is_odd(path.read_bytes())):
                read_yaml(path, "Write it without aliases")


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
