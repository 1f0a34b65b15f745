"""What decides an embedding: written beside the weights as `embedtrain.json`, compared when read back."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from embedtrain.types import InputError, SubModel

FILE = "embedtrain.json"
PACKAGES = ("embedtrain", "torch", "transformers", "sentence-transformers")
# Case, accents, digits, scripts, white space, unknown signs and the special words: where tokenizers differ.
PROBE = "Élan, the 12 QUICK foxes' naïve_re-run: 北京 \t\n Ünïcode—🙂 [MASK] </s> supercalifragilistic"


class Contract(NamedTuple):
    """The settings of one saved model."""

    pooling: str
    max_length: int
    normalize: bool
    num_layers: int
    width: int  # D, leading coordinates that the model gives
    trained: tuple[SubModel, ...]
    tokenizer_hash: str
    dtype: str
    source: str  # the folder or hub name that training began from
    versions: dict[str, str]


def write_contract(folder: Path, contract: Contract) -> None:
    """Write `embedtrain.json` into a folder."""
    (folder / FILE).write_text(json.dumps(contract._asdict(), indent=2) + "\n", encoding="utf-8")


def read_contract(folder: Path) -> Contract | None:
    """The contract of a folder, None when it has none.

    Raises:
        InputError: if the file is not what `write_contract` writes.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    fields = read_object(path)
    try:
        trained = tuple(SubModel(int(layer), int(dim)) for layer, dim in fields["trained"])
        return Contract(**{**fields, "trained": trained})
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is not a contract this version of embedtrain reads ({error}): save the model again, or "
            "remove the file to load the folder as plain sentence-transformers"
        ) from error


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises InputError naming the file and line when it is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not JSON: {error}. Fetch or save the model again") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} must hold a JSON object. Fetch or save the model again")
    return value


def package_versions() -> dict[str, str]:
    """The installed versions of the packages that shape an embedding."""
    return {name: version(name) for name in PACKAGES}


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of what the tokenizer does: its vocabulary and how it reads a probe text.

    Not of its file, which differs between versions of one and the same tokenizer.
    """
    behaviour = [sorted(tokenizer.get_vocab().items()), tokenizer(PROBE, truncation=False)["input_ids"]]
    return hashlib.sha256(json.dumps(behaviour).encode()).hexdigest()[:16]


def tensors_hash(module: nn.Module) -> str:
    """A hash of every tensor of a module by name, shape, dtype and bytes; the same in every process."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
