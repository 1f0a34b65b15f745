"""An encoder from a folder or hub name, and back: whole, or physically cut to one sub-model.

What is trained is what is shipped: the folder of sub-model (layer, dim), loaded by plain
sentence-transformers, gives `Embeddings.at(SubModel(layer, dim))`.
"""

from __future__ import annotations

import copy
import hashlib
import logging
from pathlib import Path

import torch
from tokenizers.normalizers import Lowercase, Sequence
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from embedtrain.model.atomic import atomic_folder
from embedtrain.model.backbone import Backbone
from embedtrain.model.card import model_card
from embedtrain.model.contract import Contract, package_versions, tensors_hash, tokenizer_hash, write_contract
from embedtrain.model.encoder import Encoder
from embedtrain.model.layout import Layout, read_layout, write_layout
from embedtrain.model.locate import locate
from embedtrain.model.pooling import Pooling, named_pooling
from embedtrain.types import InputError, SubModel

LOG = logging.getLogger(__name__)
LONGEST_DEFAULT = 512  # tokens, where neither the folder nor the caller says


def load_encoder(
    path: str | Path,
    *,
    pooling: Pooling | str | None = None,
    max_length: int | None = None,
    normalize: bool | None = None,
    dtype: torch.dtype | str = torch.float32,
    attn_implementation: str | None = None,
    max_tokens: int | None = None,
    gradient_checkpointing: bool = False,
) -> Encoder:
    """The encoder of a sentence-transformers, embedtrain or plain Hugging Face folder, or of a hub name.

    What the caller does not give is taken from the folder. A plain Hugging Face folder says nothing about
    pooling: it gets the mean and unit length, with a line in the log. With `gradient_checkpointing`,
    training keeps less of each block and computes it again in backward: same gradients.

    Raises:
        InputError: for a missing folder, missing weights, an unknown model type, module or pooling, or a
            folder that is not what its `embedtrain.json` says.
    """
    folder = locate(path)
    layout = read_layout(folder, pooling_given=pooling is not None)
    contract = layout.contract
    backbone = Backbone.load(layout.weights, dtype=_as_dtype(dtype), attn_implementation=attn_implementation)
    if gradient_checkpointing:
        backbone.gradient_checkpointing(True)
    tokenizer = _tokenizer(layout)
    if contract is not None:
        _compare(folder, contract, backbone, tokenizer)
    if layout.prompts:
        LOG.warning("%s has prompts for its texts; they are not added", path)
    if pooling is None and layout.pooling is None:
        LOG.info("%s does not say how to pool: taking the mean of the tokens", path)
    chosen = layout.pooling or "mean" if pooling is None else pooling
    size = {"hidden_size": backbone.hidden_size, "num_layers": backbone.num_layers}
    encoder = Encoder(
        backbone,
        named_pooling(chosen, **size) if isinstance(chosen, str) else chosen,
        tokenizer,
        max_length=_max_length(layout, backbone, tokenizer) if max_length is None else max_length,
        width=None if contract is None else contract.width,
        normalize=layout.normalize if normalize is None else normalize,
        max_tokens=max_tokens,
        trained=() if contract is None else contract.trained,
        source=_source(path) if contract is None else contract.source,
    )
    return encoder.eval()


def save_encoder(
    encoder: Encoder, folder: str | Path, sub: SubModel | None = None, *, overwrite: bool = False
) -> Path:
    """Write a folder that plain sentence-transformers loads: the whole encoder, or one sub-model of it.

    A sub-model has blocks 1..layer only and gives unit vectors of `dim` coordinates. The folder appears
    whole or not at all; weights are safetensors.

    Raises:
        InputError: for a sub-model out of range, a folder that exists (unless `overwrite`), or a disk that
            is full.
    """
    folder = Path(folder).expanduser()
    chosen = check_sub_model(encoder, sub) if sub is not None else SubModel(encoder.num_layers, encoder.width)
    contract = _contract(encoder, chosen, normalize=encoder.normalize or sub is not None)
    tokenizer = _shipped_tokenizer(encoder)
    with atomic_folder(folder, overwrite=overwrite) as beside:
        encoder.backbone.save(beside, chosen.layer)
        tokenizer.save_pretrained(beside)
        write_layout(beside, contract, encoder.backbone.hidden_size)
        write_contract(beside, contract)
        (beside / "README.md").write_text(model_card(contract, folder.name), encoding="utf-8")
    return folder


def weights_hash(encoder: Encoder) -> str:
    """40 hexadecimal digits that name these weights and settings, the same in every process."""
    contract = _contract(encoder, SubModel(encoder.num_layers, encoder.width), normalize=encoder.normalize)
    settings = (contract.pooling, contract.max_length, contract.width, contract.tokenizer_hash)
    return hashlib.sha256(f"{tensors_hash(encoder)} {settings}".encode()).hexdigest()[:40]


def check_sub_model(encoder: Encoder, sub: SubModel) -> SubModel:
    """`sub` itself. Raises InputError when it is out of range; one that was never trained is only logged."""
    trained = ", ".join(map(str, encoder.trained)) or "not recorded"
    if not (1 <= sub.layer <= encoder.num_layers and 1 <= sub.dim <= encoder.width):
        raise InputError(
            f"there is no sub-model {sub}: layer must be in 1..{encoder.num_layers} and dim in "
            f"1..{encoder.width} (trained sub-models: {trained})"
        )
    if encoder.trained and sub not in encoder.trained:
        LOG.warning("sub-model %s was not trained (trained: %s); measure it before you use it", sub, trained)
    return sub


def _contract(encoder: Encoder, sub: SubModel, *, normalize: bool) -> Contract:
    inside = [item for item in encoder.trained if item.layer <= sub.layer and item.dim <= sub.dim]
    return Contract(
        pooling=encoder.pooling.name,
        max_length=encoder.max_length,
        normalize=normalize,
        num_layers=sub.layer,
        width=sub.dim,
        trained=tuple(inside),
        tokenizer_hash=tokenizer_hash(encoder.tokenize.tokenizer),
        dtype=str(next(encoder.parameters()).dtype).removeprefix("torch."),
        source=encoder.source,
        versions=package_versions(),
    )


def _compare(
    folder: Path, contract: Contract, backbone: Backbone, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Refuse a folder whose parts were changed after it was saved."""
    found = {"num_layers": backbone.num_layers, "tokenizer_hash": tokenizer_hash(tokenizer)}
    for field, value in found.items():
        if getattr(contract, field) != value:
            raise InputError(
                f"{folder}: embedtrain.json says {field} is {getattr(contract, field)!r} but the folder has "
                f"{value!r}; its parts were changed after it was saved. Save the model again"
            )


def _tokenizer(layout: Layout) -> PreTrainedTokenizerBase:
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            layout.weights, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise InputError(f"cannot load the tokenizer in {layout.weights}: {error}") from error
    if layout.lower_case:
        backend = tokenizer.backend_tokenizer
        steps = [] if backend.normalizer is None else [backend.normalizer]
        backend.normalizer = Sequence([Lowercase(), *steps])
    return tokenizer


def _shipped_tokenizer(encoder: Encoder) -> PreTrainedTokenizerBase:
    """A copy that says our maximum length and carries no truncation left over from its last call."""
    tokenizer = copy.deepcopy(encoder.tokenize.tokenizer)
    tokenizer.model_max_length = encoder.max_length
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def _max_length(layout: Layout, backbone: Backbone, tokenizer: PreTrainedTokenizerBase) -> int:
    """The folder's own limit, else the tokenizer's, never more than the positions allow."""
    said = layout.max_length
    if said is None:
        # A tokenizer without a limit says 10^30.
        said = tokenizer.model_max_length if tokenizer.model_max_length < 10**6 else LONGEST_DEFAULT
    return said if backbone.max_positions is None else min(said, backbone.max_positions)


def _as_dtype(dtype: torch.dtype | str) -> torch.dtype:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise InputError(f"dtype must be float32, bfloat16, float16 or float64, got {dtype!r}")
    return found


def _source(path: str | Path) -> str:
    """A hub name as it is; of a local folder the last two names, which say little about the machine."""
    local = Path(path).expanduser()
    return "/".join(local.resolve().parts[-2:]) if local.is_dir() else str(path)
