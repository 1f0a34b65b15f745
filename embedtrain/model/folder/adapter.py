"""A folder of unmerged LoRA adapters: what training changed, beside the name of the model it belongs to.

    adapter_config.json, adapter_model.safetensors    peft's own format
    pooling.safetensors                               the trained parameters of the pooling, if it has any
    rotation.safetensors                              what turns the vectors of its layers, if anything does
    embedtrain.json, tokenizer.json, ...              all else that decides an embedding
    README.md                                         how to open it, in peft alone too

The base is found by its name and compared by the hash of its weights.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn

from embedtrain.files.atomic import atomic_folder
from embedtrain.model.backbone import lora
from embedtrain.model.backbone.backbone import Backbone
from embedtrain.model.backbone.families import BOTH_SIDES
from embedtrain.model.backbone.loading import loader_name
from embedtrain.model.encoder import Encoder
from embedtrain.model.folder.cards.adapter_card import adapter_card
from embedtrain.model.folder.contract import (
    AGAIN,
    Base,
    Contract,
    read_contract,
    read_object,
    tensors_hash,
    write_contract,
)
from embedtrain.model.folder.describe import contract_of, write_tokenizer
from embedtrain.model.folder.layout import TOKENIZER, Layout, read_layout
from embedtrain.model.folder.module import FoundPooling, Stored
from embedtrain.model.folder.modules import MODULES
from embedtrain.model.locate import locate
from embedtrain.model.rotation.rotation import read_rotation, write_rotation
from embedtrain.types import InputError

POOLING = "pooling.safetensors"


def save_adapter(encoder: Encoder, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write the adapters of an encoder, unmerged, and all that `load_encoder` needs beside the base.

    Raises:
        InputError: when the encoder has no adapters, the folder exists (unless `overwrite`), or the disk is
            full.
    """
    folder = Path(folder).expanduser()
    base = Base(encoder.origin, base_hash(encoder.backbone))
    with atomic_folder(folder, overwrite=overwrite) as beside:
        lora.save_adapter(encoder.backbone, beside, encoder.origin)
        write_tokenizer(encoder, beside)
        contract = contract_of(encoder, base=base)
        write_contract(beside, contract)
        if state := pooling_state(encoder):
            save_file(state, beside / POOLING)
        if encoder.rotation is not None:
            write_rotation(beside, encoder.rotation.cut(encoder.num_layers, encoder.width))
        (beside / "README.md").write_text(_card(encoder, folder.name, contract), encoding="utf-8")
    return folder


def _card(encoder: Encoder, name: str, contract: Contract) -> str:
    config = encoder.backbone.model.config
    switch: dict[str, bool] = {}
    if encoder.backbone.turned:
        own = BOTH_SIDES.get(config.model_type)
        switch = {own: True} if own else {"is_causal": False}
    return adapter_card(
        contract,
        name,
        loader=loader_name(config),
        switch=switch,
        hidden_size=encoder.backbone.hidden_size,
    )


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds LoRA adapters and no model."""
    return (folder / lora.CONFIG).is_file() and not (folder / "config.json").is_file()


def read_adapter(
    folder: Path, base: str | Path | None, *, code: bool = False
) -> tuple[Layout, Contract | None]:
    """What an adapter's folder says, with the weights of its base: `base`, or the one that it names.

    A folder of sentence-transformers with adapters says how it embeds in its modules; one of peft alone
    embeds as its base does.

    Raises:
        InputError: when the base is not to be found.
    """
    contract = read_contract(folder)
    named = contract.base.source if contract is not None and contract.base is not None else _named(folder)
    try:
        whole = locate(named if base is None else base, code=code)
    except InputError as error:
        raise InputError(f"{folder} needs the model its adapters belong to: {error}, as base=...") from error
    below = read_layout(whole, pooling_given=contract is not None or (folder / MODULES).is_file())
    if contract is None:
        if (folder / POOLING).is_file():
            raise InputError(f"{folder} has {POOLING} and no embedtrain.json that says how: save it again")
        own = read_layout(folder, weights=below.weights) if (folder / MODULES).is_file() else below
        tokenizer = folder if (folder / TOKENIZER).is_file() else below.tokenizer
        return own._replace(tokenizer=tokenizer, contract=None, adapter=folder, base=named), None
    weights = folder / POOLING
    layout = Layout(
        weights=below.weights,
        tokenizer=folder,
        contract=contract,
        pooling=FoundPooling(
            contract.pooling,
            contract.pooling_settings,
            (Stored(weights, "pooling.", ""),) if weights.is_file() else (),
        ),
        include_prompt=contract.pool_prompt,
        max_length=contract.max_length,
        normalize=contract.normalize,
        width=contract.width,
        rotation=read_rotation(folder, AGAIN),
        prompts=contract.prompts,
        default_prompt=contract.default_prompt,
        adapter=folder,
        base=named,
    )
    return layout, contract


def _named(folder: Path) -> str:
    """The base that peft's own file names."""
    named = read_object(folder / lora.CONFIG).get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise InputError(
            f"{folder / lora.CONFIG} names no base_model_name_or_path: give the model as base=..."
        )
    return named


def base_hash(backbone: Backbone) -> str:
    """A hash of a backbone's weights without its adapters, the same before and after they are put in."""
    state = backbone.model.state_dict()
    return tensors_hash(
        {name.replace(".base_layer.", "."): value for name, value in state.items() if "lora_" not in name}
    )


def pooling_state(encoder: Encoder) -> dict[str, Tensor]:
    """The pooling's parameters as they are written to files."""
    assert isinstance(encoder.pooling, nn.Module)
    return {
        f"pooling.{name}": value.cpu().contiguous() for name, value in encoder.pooling.state_dict().items()
    }
