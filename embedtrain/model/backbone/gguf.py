"""GGUF files: where one is, and what Hugging Face's loaders want to be told about it."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import NamedTuple

from transformers.utils import logging as transformers_logging

from embedtrain.model.locate import has_weights
from embedtrain.types import InputError

NEEDED = ("gguf", "accelerate")


class Source(NamedTuple):
    """The arguments that make `from_pretrained` read a folder, or the GGUF file in it."""

    folder: Path
    options: dict[str, str]  # gguf_file, or nothing


def pretrained_source(path: str | Path) -> Source:
    """How config, weights and tokenizer at `path` are read: `from_pretrained(folder, **options)`.

    `path` is a folder, a `.gguf` file, or a folder whose only weights are one `.gguf` file.

    Raises:
        InputError: when a folder holds several GGUF files, or the packages to read one are missing.
    """
    path = Path(path)
    file = _gguf_file(path)
    if file is None:
        return Source(path, {})
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"{file} is a GGUF file; to read it install {' and '.join(missing)}: "
            "pip install 'embedtrain[llm]'"
        )
    return Source(file.parent, {"gguf_file": file.name})


@contextmanager
def quiet_unpacking() -> Iterator[None]:
    """No progress bar of unpacking where those of transformers are off: it does not ask for itself."""
    if transformers_logging.is_progress_bar_enabled():  # type: ignore[no-untyped-call, unused-ignore]
        yield
        return
    with redirect_stderr(io.StringIO()):
        yield


def _gguf_file(path: Path) -> Path | None:
    if path.is_file():
        return path if path.suffix == ".gguf" else None
    if not path.is_dir() or has_weights(path):
        return None
    files = sorted(path.glob("*.gguf"))
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise InputError(f"{path} holds several GGUF files ({names}): give the path of one")
    return files[0] if files else None
