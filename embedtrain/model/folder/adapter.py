"""A folder of unmerged LoRA adapters: what training changed, beside the name of the model it belongs to.

    adapter_config.json, adapter_model.safetensors    peft's own format
    pooling.safetensors                               the trained parameters of the pooling, if it has any
    embedtrain.json, tokenizer.json, ...              all else that decides an embedding

The base is found by its name and compared by the hash of its weights.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn

from embedtrain.files.atomic import atomic_folder
from embedtrain.model.backbone import lora
from embedtrain.model.backbone.backbone import Backbone
from embedtrain.model.encoder import Encoder
from embedtrain.model.folder.contract import FILE, Base, Contract, read_contract, tensors_hash, write_contract
from embedtrain.model.folder.describe import contract_of, shipped_tokenizer
from embedtrain.model.folder.layout import FoundPooling, Layout, read_layout
from embedtrain.model.locate import locate
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
        shipped_tokenizer(encoder).save_pretrained(beside)
        write_contract(beside, contract_of(encoder, base=base))
        if state := pooling_state(encoder):
            save_file(state, beside / POOLING)
    return folder


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds LoRA adapters and no model."""
    return (folder / lora.CONFIG).is_file() and not (folder / "config.json").is_file()


def read_adapter(folder: Path, base: str | Path | None) -> tuple[Layout, Contract]:
    """What an adapter's folder says, with the weights of its base: `base`, or the one that it names.

    Raises:
        InputError: when the folder was not written by `save_adapter`, or the base is not to be found.
    """
    contract = read_contract(folder)
    if contract is None or contract.base is None:
        raise InputError(
            f"{folder} has LoRA adapters without an {FILE} that names their base and says how they embed: "
            "merge them into their model with peft (merge_and_unload) and load that"
        )
    try:
        whole = locate(contract.base.source if base is None else base)
    except InputError as error:
        raise InputError(f"{folder} needs the model its adapters belong to: {error}, as base=...") from error
    weights = folder / POOLING
    layout = Layout(
        weights=read_layout(whole, pooling_given=True).weights,
        tokenizer=folder,
        contract=contract,
        pooling=FoundPooling(
            contract.pooling, contract.pooling_settings, weights if weights.is_file() else None
        ),
        include_prompt=contract.pool_prompt,
        max_length=contract.max_length,
        normalize=contract.normalize,
        width=contract.width,
        prompts=contract.prompts,
        adapter=folder,
    )
    return layout, contract


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
