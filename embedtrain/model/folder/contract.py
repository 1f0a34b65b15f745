"""What decides an embedding: written beside the weights as `embedtrain.json`, compared when read back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from embedtrain.files.reading import read_json
from embedtrain.model.backbone.attention import Attention
from embedtrain.model.pooling import Setting
from embedtrain.types import InputError, SubModel

FILE = "embedtrain.json"
AGAIN = "Fetch or save the model again"
FORMAT = 5  # of the file: raised when a field is added, so that an older file is not read as if it said all
SINCE_5: dict[str, Any] = {"rotation": []}
SINCE_4: dict[str, Any] = {"code": None, **SINCE_5}
# By format: what its files meant by silence.
ADDED = {2: {"default_prompt": None, **SINCE_4}, 3: SINCE_4, 4: SINCE_5}
NAMED_SHORT = (2, 3)  # formats whose source may be the end of a local path that looks like a name of the hub
PACKAGES = ("embedtrain", "torch", "transformers", "sentence-transformers")
# Case, accents, digits, scripts, white space, unknown signs and the special words: where tokenizers differ.
PROBE = "Élan, the 12 QUICK foxes' naïve_re-run: 北京 \t\n Ünïcode—🙂 [MASK] </s> supercalifragilistic"
# What names a model or records its history, but decides nothing.
HISTORY = ("trained", "source", "base", "versions")


class Base(NamedTuple):
    """The model that an adapter belongs to."""

    source: str  # the folder, file or hub name to load it from
    weights_hash: str


class Contract(NamedTuple):
    """The settings of one saved model."""

    pooling: str
    pooling_settings: dict[str, Setting]
    rotation: tuple[int, ...]  # layers whose vectors are rotated; the matrices are in a file of weights
    pool_prompt: bool  # whether the tokens of a prompt are pooled
    prompts: dict[str, str]  # by role, or by the name of a task
    default_prompt: str | None  # name of the one that sentence-transformers takes where none is asked for
    attention: Attention
    special_tokens: tuple[
        tuple[str, ...], tuple[str, ...]
    ]  # that the tokenizer puts before and behind a text
    padding_side: str
    max_length: int
    normalize: bool
    num_layers: int
    width: int  # D, leading coordinates that the model gives
    dtype: str
    tokenizer_hash: str
    code: str | None  # a hash of the source of a model whose code lies in its folder
    trained: tuple[SubModel, ...]
    source: str  # the folder or hub name that training began from
    base: Base | None  # of an adapter folder, which lacks the weights of its base
    versions: dict[str, str]


def write_contract(folder: Path, contract: Contract) -> None:
    """Write `embedtrain.json` into a folder."""
    fields = {"format": FORMAT, **contract._asdict()}
    fields["base"] = None if contract.base is None else contract.base._asdict()
    text = json.dumps(fields, indent=2, ensure_ascii=False) + "\n"
    (folder / FILE).write_text(text, encoding="utf-8", errors="backslashreplace")  # half a character: \ud800


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
        found = fields.pop("format", 1)
        if found != FORMAT and found not in ADDED:
            raise ValueError(f"its format is {found}, this version reads {FORMAT}")
        fields = {**ADDED.get(found, {}), **fields}
        if found in NAMED_SHORT and fields["source"].count("/") == 1:
            fields["source"] = f".../{fields['source']}"
        before, behind = fields["special_tokens"]
        parsed = {
            "trained": tuple(SubModel(int(layer), int(dim)) for layer, dim in fields["trained"]),
            "special_tokens": (tuple(before), tuple(behind)),
            "rotation": tuple(int(layer) for layer in fields["rotation"]),
            "base": None if fields["base"] is None else Base(**fields["base"]),
        }
        return Contract(**{**fields, **parsed})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} is not a contract this version of embedtrain reads ({error}): save the model again, or "
            "remove the file to load the folder as plain sentence-transformers"
        ) from error


def compare(folder: Path, contract: Contract, found: Mapping[str, object]) -> None:
    """Refuse a folder whose parts were changed after it was saved.

    Args:
        folder: for the message.
        contract: what the folder says of itself.
        found: what its other files say, by field; a field that no file states is left out.

    Raises:
        InputError: naming the first field that differs, and both values.
    """
    for field, value in found.items():
        said = getattr(contract, field)
        if said != value:
            raise InputError(
                f"{folder}: {FILE} says {field} is {said!r} but the folder has {value!r}; its parts were "
                "changed after it was saved. Save the model again"
            )


def deciding(contract: Contract) -> str:
    """All fields that decide an embedding, as text that is the same in every process."""
    fields = {key: value for key, value in contract._asdict().items() if key not in HISTORY}
    if contract.code is None:
        del fields["code"]  # so that the names of all other models stay
    return json.dumps(fields, sort_keys=True)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises InputError naming the file and line when it is none."""
    value = read_json(path, AGAIN)
    if not isinstance(value, dict):
        raise InputError(f"{path} must hold a JSON object. {AGAIN}")
    return value


def package_versions() -> dict[str, str]:
    """The installed versions of the packages that shape an embedding."""
    return {name: version(name) for name in PACKAGES}


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The tokens that the tokenizer puts before a text, and those it puts behind it."""
    read = tokenizer("a", return_special_tokens_mask=True, truncation=False)
    added = [bool(mark) for mark in read["special_tokens_mask"]]
    tokens = tokenizer.convert_ids_to_tokens(read["input_ids"])
    first = added.index(False) if False in added else len(added)
    last = len(added) - (added[::-1].index(False) if False in added else 0)
    return tuple(tokens[:first]), tuple(tokens[last:])


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of what the tokenizer does: its vocabulary and how it reads a probe text, added tokens included.

    Not of its file, which differs between versions of one and the same tokenizer.
    """
    behaviour = [
        sorted(tokenizer.get_vocab().items()),
        tokenizer(PROBE, truncation=False, verbose=False)["input_ids"],
    ]
    return hashlib.sha256(json.dumps(behaviour).encode()).hexdigest()[:16]


def text_hash(text: str) -> str:
    """40 hexadecimal digits of a text: the name of whatever the text describes."""
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def tensors_hash(state: Mapping[str, Tensor]) -> str:
    """A hash of every tensor by name, shape, dtype and bytes; the same in every process."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
