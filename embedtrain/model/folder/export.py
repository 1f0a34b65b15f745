"""An encoder from a folder or hub name, and back: whole, or physically cut to one sub-model.

What is trained is what is shipped: the folder of sub-model (layer, dim), loaded by plain
sentence-transformers, gives `Embeddings.at(SubModel(layer, dim))`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch

from embedtrain.files.atomic import atomic_folder
from embedtrain.files.reading import reading
from embedtrain.model.backbone.attention import Attention
from embedtrain.model.backbone.backbone import Backbone
from embedtrain.model.backbone.dropout import set_dropout
from embedtrain.model.backbone.freezing import freeze
from embedtrain.model.backbone.loading import as_dtype
from embedtrain.model.backbone.lora import add_lora, load_adapter
from embedtrain.model.encoder import Encoder
from embedtrain.model.folder.adapter import base_hash, is_adapter, read_adapter
from embedtrain.model.folder.cards.card import (
    GRAPHS,
    PICTURE,
    TURNED,
    Lineage,
    Story,
    model_card,
    read_lineage,
)
from embedtrain.model.folder.config_file import write_config
from embedtrain.model.folder.contract import AGAIN, Contract, compare, write_contract
from embedtrain.model.folder.describe import contract_of, write_tokenizer
from embedtrain.model.folder.layout import Layout, read_layout
from embedtrain.model.folder.parts import (
    Given,
    facts_of,
    kept_width,
    longest_text,
    origin_of,
    pooling_for,
    read_tokenizer,
    rotation_of,
    source_of,
    stated_width,
    with_trained_layers,
)
from embedtrain.model.folder.st_folder import Shipped, miscounted_prompts, write_layout
from embedtrain.model.inputs.tokenizer import Side, TextTokenizer
from embedtrain.model.locate import locate
from embedtrain.types import InputError, SubModel

LOG = logging.getLogger(__name__)


def load_encoder(
    path: str | Path,
    *,
    pooling: Given = None,
    attention: Attention | None = None,
    prompts: Mapping[str, str] | None = None,
    include_prompt: bool | None = None,
    append_eos: bool | None = None,
    padding_side: Side | None = None,
    max_length: int | None = None,
    normalize: bool | None = None,
    dtype: torch.dtype | str = torch.float32,
    attn_implementation: str | None = None,
    base: str | Path | None = None,
    lora: Mapping[str, Any] | None = None,
    dropout: float | None = None,
    freeze_embeddings: bool = False,
    freeze_blocks: int = 0,
    gradient_checkpointing: bool = False,
    max_tokens: int | None = None,
    packing: bool | None = None,
    trust_remote_code: bool = False,
) -> Encoder:
    """The encoder of a sentence-transformers, embedtrain, adapter or plain Hugging Face folder, or hub name.

    What the caller does not give is taken from the folder. A plain Hugging Face folder or GGUF file says
    nothing about pooling: it gets the mean and unit length, with a line in the log.

    Args:
        path: folder, hub name, or `.gguf` file.
        pooling: one that is built, the name of one, or what builds one from `hidden_size` and `num_layers`.
        attention: causal or bidirectional, for decoders.
        prompts: text put before every text of a role, or of a task of that name; replaces the folder's.
        include_prompt: whether the tokens of a prompt are pooled; they are where the folder does not say.
        append_eos: end every text in the end token; None where a pooling that is given needs it, and
            otherwise as the folder's tokenizer does.
        padding_side: right or left. It changes no embedding.
        max_length: longest text in tokens, prompt and special ones included.
        normalize: whether a shipped full model ends in a unit vector.
        dtype: of the backbone; the parameters of a pooling stay as they are.
        attn_implementation: sdpa, eager, flash_attention_2, ...; sdpa where the model has it when none.
        base: where the model of an adapter folder is now; the folder names where it was.
        lora: settings of `add_lora`: train adapters instead of the backbone's own weights.
        dropout: share of numbers that the backbone drops in training; None: what its config says.
        freeze_embeddings: do not train what comes before the first block.
        freeze_blocks: blocks, from the first, that are not trained.
        gradient_checkpointing: keep less of each block and compute it again in backward: same gradients.
        max_tokens: rows x padded length of a micro-batch; None fits the device.
        packing: let short texts share a row of tokens, which changes no embedding; refused where a probe says
            it does. None: on a CPU, where it saves tokens and the model can.
        trust_remote_code: run the code that the folder brings along for its model or tokenizer (`auto_map`).

    Raises:
        InputError: for a missing folder, missing weights, an unknown model type, module or pooling, a
            setting that the model cannot have, or a folder that is not what its `embedtrain.json` says.
    """
    if not isinstance(trust_remote_code, bool):
        raise InputError(f"trust_remote_code must be true or false, got {trust_remote_code!r}")
    folder = locate(path, code=trust_remote_code)
    layout, contract = _read(folder, base, pooling_given=pooling is not None, trusted=trust_remote_code)
    if attention is None and layout.adapter is not None and contract is not None:
        attention = contract.attention  # the base's own config may say another
    backbone = Backbone.load(
        layout.weights,
        dtype=as_dtype(dtype),
        attn_implementation=attn_implementation,
        attention=attention,
        trust_remote_code=trust_remote_code,
    )
    if dropout is not None:
        set_dropout(backbone.model, dropout)
    tokenizer = read_tokenizer(layout)
    if contract is not None:
        contract = with_trained_layers(folder, contract, layout)
        compare(folder, contract, facts_of(layout, backbone, tokenizer))
    built = pooling_for(pooling, layout.pooling, backbone)
    if contract is not None:
        compare(folder, contract, stated_width(layout, built, backbone))
    _adapt(backbone, layout, lora)
    freeze(backbone, embeddings=freeze_embeddings, first_blocks=freeze_blocks)
    if gradient_checkpointing:
        backbone.gradient_checkpointing(True)
    if pooling is None and layout.pooling is None:
        LOG.info("%s does not say how to pool: taking the mean of the tokens", path)
    process = TextTokenizer(
        tokenizer,
        longest_text(layout, backbone, tokenizer) if max_length is None else max_length,
        prompts=layout.prompts if prompts is None else prompts,
        include_prompt=layout.include_prompt is not False if include_prompt is None else include_prompt,
        append_eos=pooling is not None and built.needs_eos if append_eos is None else append_eos,
        padding_side=cast(Side, tokenizer.padding_side) if padding_side is None else padding_side,
        default_prompt=layout.default_prompt if prompts is None else None,
    )
    encoder = Encoder(
        backbone,
        built,
        process,
        width=kept_width(layout, built, backbone),
        rotation=rotation_of(layout),
        normalize=layout.normalize if normalize is None else normalize,
        max_tokens=max_tokens,
        packing=packing,
        trained=() if contract is None else contract.trained,
        source=source_of(path) if contract is None else contract.source,
        origin=origin_of(layout, path, base),
    )
    lineage = read_lineage(layout.weights if layout.adapter is not None else folder)
    encoder.license = lineage.license
    encoder.datasets = () if contract is None else lineage.datasets  # those of a base are not ours
    return encoder.eval()


def save_encoder(
    encoder: Encoder,
    folder: str | Path,
    sub: SubModel | None = None,
    *,
    overwrite: bool = False,
    story: Story = Story(),  # noqa: B008 (a NamedTuple is constant)
    more: Callable[[Path], object] | None = None,
) -> Path:
    """Write a folder that sentence-transformers loads: the whole encoder, or one sub-model of it.

    A sub-model has blocks 1..layer only and gives unit vectors of `dim` coordinates. LoRA adapters are
    merged. The folder appears whole or not at all; weights are safetensors. Where sentence-transformers has
    no such pooling, the folder has its source, and `trust_remote_code=True` loads it. `story` is what
    the card says of its run; `more` writes further files into the folder.

    Raises:
        InputError: for a sub-model out of range, a folder that exists (unless `overwrite`), or a disk that
            is full.
    """
    folder = Path(folder).expanduser()
    shipped = shipped_parts(encoder, sub)
    with atomic_folder(folder, overwrite=overwrite) as beside:
        write_model(encoder, shipped, beside, folder.name, story=story)
        if more is not None:
            more(beside)
    return folder


def shipped_parts(encoder: Encoder, sub: SubModel | None) -> Shipped:
    """What the folder of an encoder, or of one sub-model of it, is written from. Raises as `save_encoder`."""
    chosen = check_sub_model(encoder, sub) if sub is not None else SubModel(encoder.num_layers, encoder.width)
    return Shipped(
        contract=contract_of(encoder, chosen, normalize=encoder.normalize or sub is not None),
        hidden_size=encoder.backbone.hidden_size,
        pooling=encoder.pooling.cut(chosen.layer),
        norm=encoder.backbone.final_norm,
        rotation={} if encoder.rotation is None else encoder.rotation.cut(*chosen),
        prompt_lengths=miscounted_prompts(encoder.process),
        turned=encoder.backbone.turned,
    )


def write_model(
    encoder: Encoder,
    shipped: Shipped,
    folder: Path,
    name: str,
    *,
    story: Story = Story(),  # noqa: B008 (a NamedTuple is constant)
    notes: Sequence[str] = (),
) -> None:
    """Write the files of `save_encoder` into a folder that is there; `notes` are lines for the card."""
    encoder.backbone.save(folder, shipped.contract.num_layers)
    write_config(folder / "config.json", shipped.contract)
    write_tokenizer(encoder, folder)
    write_layout(folder, shipped)
    write_contract(folder, shipped.contract)
    lineage = Lineage(encoder.license, encoder.datasets)
    notes = [TURNED, *notes] if shipped.turned else notes
    card = model_card(
        shipped.contract,
        name,
        lineage,
        is_plain=shipped.is_plain,
        has_graph=(folder / GRAPHS).is_dir(),
        story=story,
        notes=notes,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    if story.picture is not None:
        (folder / PICTURE).write_bytes(story.picture.read_bytes())


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


def _read(
    folder: Path, base: str | Path | None, *, pooling_given: bool, trusted: bool
) -> tuple[Layout, Contract | None]:
    if is_adapter(folder):
        layout, contract = read_adapter(folder, base, code=trusted)
        return layout._replace(trusted=trusted), contract
    if base is not None:
        raise InputError(f"{folder} is no folder of adapters, so it has no use for base={base}: leave it out")
    with reading(folder, AGAIN):
        layout = read_layout(folder, pooling_given=pooling_given)
    return layout._replace(trusted=trusted), layout.contract


def _adapt(backbone: Backbone, layout: Layout, lora: Mapping[str, Any] | None) -> None:
    """Put the folder's adapters, or new ones, into a backbone."""
    if layout.adapter is None:
        if lora is not None:
            try:
                add_lora(backbone, **lora)
            except TypeError as error:
                raise InputError(f"lora: {error}; see the settings of add_lora") from error
        return
    contract = layout.contract
    if contract is None:
        load_adapter(backbone, layout.adapter)
        return
    assert contract.base is not None
    dtype = str(next(backbone.parameters()).dtype).removeprefix("torch.")
    if dtype != contract.dtype:
        LOG.warning("adapters of weights in %s, not %s: the base is not compared", contract.dtype, dtype)
    elif (found := base_hash(backbone)) != contract.base.weights_hash:
        raise InputError(
            f"{layout.weights} is not the model that the adapters in {layout.adapter} were trained on: "
            f"embedtrain.json says base weights_hash is {contract.base.weights_hash[:12]}..., this one has "
            f"{found[:12]}.... Give the right one as base=..."
        )
    load_adapter(backbone, layout.adapter)
