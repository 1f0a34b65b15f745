"""Where a model's folder is: on this machine, or fetched from the hub."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from embedtrain.files.owned import recover
from embedtrain.types import InputError

DESCRIPTION = ["*.json", "*.txt", "*.model", "README.md"]
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def locate(path: str | Path, *, code: bool = False) -> Path:
    """The local folder of a model, or its GGUF file: `path` itself, or the hub model of that name.

    Of the hub, source files are fetched too where `code`.

    Raises:
        InputError: when neither exists (with the nearest name there is), or the hub cannot be reached.
    """
    try:
        local = Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"{path}: no user has this name. A folder of it is ./{path}") from error
    if local.is_dir():
        return local
    recover(local)
    if local.is_dir():
        return local
    if local.is_file() and local.suffix == ".gguf":
        return local
    if local.is_file():
        raise InputError(f"{path} is a file: give the folder of the model, or a .gguf file")
    if isinstance(path, str) and _may_be_hub_name(path):
        return _fetch(path, [*DESCRIPTION, *(["*.py"] if code else [])])
    raise InputError(f"there is no model folder {path}{_nearest(local)}: give a folder or a hub name")


def has_weights(folder: Path) -> bool:
    """Whether a folder holds the weights of a Hugging Face model."""
    return any((folder / name).is_file() for name in WEIGHTS)


def _may_be_hub_name(path: str) -> bool:
    """`name` or `owner/name`, unless `owner` is a folder here."""
    return re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", path) is not None and not (
        "/" in path and Path(path).parent.is_dir()
    )


def _fetch(name: str, described: list[str]) -> Path:
    try:
        folder = Path(snapshot_download(name, allow_patterns=[*described, "*.safetensors"]))
        if not any(folder.rglob("*.safetensors")):
            folder = Path(snapshot_download(name, allow_patterns=[*described, "pytorch_model*.bin"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"there is no model folder {name}{_nearest(Path(name))}, and the hub model of that name is not "
            f"to be had ({type(error).__name__}: {reason}). Check the name; on a machine that is offline, "
            f"fetch it first with `hf download {name}` where there is a network, or give a local folder"
        ) from error
    return folder


def _nearest(missing: Path) -> str:
    """The existing folder that the user most likely meant, as a parenthesis; empty without one."""
    parent = missing.parent
    if not parent.is_dir():
        return f" ({parent} does not exist either)"
    names = [entry.name for entry in parent.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    close = difflib.get_close_matches(missing.name, names, n=1, cutoff=0.5)
    return f" (nearest: {parent / close[0]})" if close else ""
