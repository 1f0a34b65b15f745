"""What a config.json may ask for: no model of a size that its weights cannot have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embedtrain.types import InputError

MOST = {"layer|block": 2_000, "position": 1 << 26, "label": 1 << 20, "": 1 << 31}  # by a word of the key
TIMES = 64  # values that a table of the config has for each byte of weights


def check_size(folder: Path) -> None:
    """Refuse a config that describes far more than the weights beside it, before anything is built of it.

    Raises:
        InputError: naming the file and the key.
    """
    file = folder / "config.json"
    if not file.is_file():
        return
    config = json.loads(file.read_text("utf-8"))
    for key, value in _numbers(config):
        most = next(limit for word, limit in MOST.items() if re.search(word, key))
        if value > most and not key.endswith("_token_id"):
            raise InputError(f"{file} says {key} is {value:,}, more than {most:,}: fetch the model again")
    sizes = dict(_numbers(config))
    table = sizes.get("vocab_size", 0) * min(
        sizes.get("hidden_size", 0), sizes.get("embedding_size", sizes.get("hidden_size", 0))
    )
    held = sum(path.stat().st_size for path in folder.glob("*") if path.suffix in (".safetensors", ".bin"))
    if held and table > TIMES * held:
        raise InputError(
            f"{file} describes {table:,} values of embeddings, and the weights beside it have {held:,} bytes"
            ": fetch the model again"
        )


def _numbers(node: Any, depth: int = 0) -> Iterator[tuple[str, int]]:  # noqa: ANN401 - any JSON
    """Whole numbers and their keys, those of inner objects first."""
    if not isinstance(node, dict) or depth > 8:
        return
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _numbers(value, depth + 1)
        elif isinstance(value, int) and not isinstance(value, bool):
            yield str(key), value
