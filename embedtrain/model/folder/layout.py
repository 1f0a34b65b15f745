"""What a model's folder says of itself in its files, read by hand: sentence-transformers, ours, or plain.

Names of modules and keys are those of sentence-transformers 2 to 6.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from embedtrain.model.backbone.gguf import pretrained_source
from embedtrain.model.folder.contract import Contract, read_contract, read_object
from embedtrain.model.folder.module import FoundPooling, flag, name_unread
from embedtrain.model.folder.modules import read_modules
from embedtrain.model.locate import has_weights
from embedtrain.types import InputError, Role

LOG = logging.getLogger(__name__)

MODEL_SETTINGS = "config_sentence_transformers.json"
TOKENIZER = "tokenizer_config.json"
MODEL_KEYS = (
    *("__version__", "prompts", "default_prompt_name", "similarity_fn_name", "truncate_dim", "model_type"),
)
# Of these, all but the first two are what sentence-transformers 6 writes of any text model.
TRANSFORMER_KEYS = (
    *("max_seq_length", "do_lower_case"),
    *("transformer_task", "modality_config", "module_output_name", "unpad_inputs"),
)
# sentence-transformers looks for a document's prompt under these names, in this order.
PROMPT_NAMES: dict[Role, tuple[str, ...]] = {
    "query": ("query",),
    "document": ("document", "passage", "corpus"),
}


class Layout(NamedTuple):
    """What a folder says about the model in it; None where it is silent."""

    weights: Path  # the folder of the Hugging Face model, or a GGUF file
    tokenizer: Path  # the same, but for an adapter
    contract: Contract | None = None
    pooling: FoundPooling | None = None
    include_prompt: bool | None = None  # whether the tokens of a prompt are pooled
    max_length: int | None = None
    normalize: bool = True
    width: int | None = None  # leading coordinates that are kept
    rotation: Mapping[int, Tensor] = {}  # by layer, what turns its vectors
    lower_case: bool = False  # the tokenizer is to lower-case although its own file does not say so
    prompts: Mapping[str, str] = {}  # by role or by the name of a task
    default_prompt: str | None = None  # which of them sentence-transformers takes where none is asked for
    adapter: Path | None = None  # folder of unmerged LoRA adapters for `weights`
    base: str = ""  # what the adapters' own file calls their model
    trusted: bool = False  # whether the user lets code of the folder run


def read_layout(path: Path, *, pooling_given: bool = False, weights: Path | None = None) -> Layout:
    """What a sentence-transformers, embedtrain or plain Hugging Face folder, or a GGUF file, says.

    With `pooling_given` the folder's own pooling is not read, so it may be one we do not have. What a setting
    of sentence-transformers means here, and which are not read, is said in the log. `weights` is where the
    Hugging Face model is, where the folder has none.

    Raises:
        InputError: for a module that embedtrain does not read, or missing weights.
    """
    if pretrained_source(path).options:
        return Layout(path, path)
    contract = read_contract(path)
    found = read_modules(path, pooling_given=pooling_given)
    if weights is None:
        weights = found.transformer
        if not (weights / "config.json").is_file() or not has_weights(weights):
            lacks = "weights (model.safetensors)" if (weights / "config.json").is_file() else "config.json"
            run = has_weights(weights / "model") and (weights / "config.yaml").is_file()
            cure = f"give its model, {weights / 'model'}" if run else "fetch or save it again"
            is_ = "is the folder of a run" if run else f"has no {lacks}, so it is not a whole model"
            raise InputError(f"{weights} {is_}: {cure}")
    settings, lower_case = _settings(found.transformer, contract)
    length = settings.get("max_seq_length")
    prompts, default = _prompts(path)
    return Layout(
        weights=weights,
        tokenizer=found.transformer if (found.transformer / TOKENIZER).is_file() else weights,
        contract=contract,
        pooling=found.pooling,
        include_prompt=found.include_prompt,
        max_length=length if isinstance(length, int) else None,
        normalize=found.normalize,
        width=_width(path, found.width),
        rotation=found.rotation,
        lower_case=lower_case,
        prompts=prompts,
        default_prompt=default,
    )


def _settings(folder: Path, contract: Contract | None) -> tuple[dict[str, Any], bool]:
    """What the Transformer module reads, and whether texts are lower-cased."""
    for pattern in ("sentence_*bert_config.json", "sentence_*_config.json"):
        for file in sorted(folder.glob(pattern)):
            settings = read_object(file)
            if contract is None:
                name_unread(file, settings, TRANSFORMER_KEYS)
            return settings, flag(file, settings, "do_lower_case", default=False)
    return {}, False


def _width(folder: Path, width: int | None) -> int | None:
    """The smaller of what modules and `truncate_dim` keep."""
    truncated = _model_settings(folder).get("truncate_dim")
    if not isinstance(truncated, int) or (width is not None and width <= truncated):
        return width
    LOG.warning(
        "%s: truncate_dim %d is the widest that vectors are. embedtrain truncates before it normalises, so "
        "vectors have length one; sentence-transformers truncates last. Remove truncate_dim there for all",
        folder / MODEL_SETTINGS,
        truncated,
    )
    return truncated


def _prompts(folder: Path) -> tuple[dict[str, str], str | None]:
    """Prompts that are not empty, those of the roles under the names of the roles; and the default's name."""
    settings = _model_settings(folder)
    name_unread(folder / MODEL_SETTINGS, settings, MODEL_KEYS)
    if (similarity := settings.get("similarity_fn_name")) not in (None, "cosine"):
        LOG.warning("%s: similarity_fn_name %s, here it is cosine", folder / MODEL_SETTINGS, similarity)
    found, default = settings.get("prompts"), settings.get("default_prompt_name")
    said = {str(key): str(value) for key, value in found.items() if value} if isinstance(found, dict) else {}
    for role, names in PROMPT_NAMES.items():
        first = next((name for name in names if name in said), None)
        if first is not None and first != role:
            said[role] = said.pop(first)
            LOG.info(
                "%s: the prompt %r is read as that of a %s; encode_%s of sentence-transformers 5 and 6 "
                "leaves it out, and uses it once exported",
                *(folder / MODEL_SETTINGS, first, role, role),
            )
            default = role if default == first else default
    if default not in said:
        return said, None
    LOG.info(
        "%s: default_prompt_name %r is kept for encode() of what is exported; here the prompt of a text is "
        "that of its role",
        folder / MODEL_SETTINGS,
        default,
    )
    return said, default


def _model_settings(folder: Path) -> dict[str, Any]:
    """What sentence-transformers reads of the model as a whole."""
    path = folder / MODEL_SETTINGS
    return read_object(path) if path.is_file() else {}
