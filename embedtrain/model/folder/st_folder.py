"""The files that make a Hugging Face folder one of sentence-transformers: its modules, prompts and settings.

Where sentence-transformers pools as we do, its own modules are named, and the folder loads everywhere. For
the other poolings, and for prompts whose tokens it would miscount, the folder brings `StatePooling` along,
which it loads with `trust_remote_code=True`.

A gated mean is a `Dense` of each token, which ends in `torch.nn.GLU`, before a `Pooling` by mean; the queries
of all layers lie beside its weights, for further cuts.

A cut model truncates INSIDE: a `Dense` module whose weight is the first `dim` rows of the identity, or of the
rotation of its last layer, is put between Pooling and Normalize. `truncate_dim` of sentence-transformers acts
after the last module, so it would leave vectors shorter than one; a `Dense` is a module of every version and
needs no argument.

Module names and keys are those of sentence-transformers 2 to 5, which version 6 reads without a word.
A decoder made bidirectional has a name of version 6: those before may run on a transformers that leaves it
causal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from embedtrain.model.folder.config_file import write_json
from embedtrain.model.folder.contract import Contract, read_object
from embedtrain.model.folder.module import QUERIES, ST_ORDER, TOKENS, as_mode
from embedtrain.model.folder.modules import MODULES, STATE_POOLING
from embedtrain.model.folder.shipped_code import shipped_sources, state_norm
from embedtrain.model.folder.shipped_pooling import StatePooling
from embedtrain.model.inputs.tokenizer import TextTokenizer
from embedtrain.model.pooling import (
    POOLINGS,
    GatedMean,
    Pooling,
    pooled_width,
    sentence_transformers_keys,
)
from embedtrain.model.pooling.gated import as_glu
from embedtrain.model.pooling.joined import Dense
from embedtrain.model.rotation.rotation import padded, write_rotation
from embedtrain.types import InputError

NEWER_TRANSFORMER = "sentence_transformers.base.modules.transformer.Transformer"  # in 6.0 and later
_STEP_TYPES = {"dense": "Dense", "layer_norm": "LayerNorm", "normalize": "Normalize"}  # by `kind`


class Shipped(NamedTuple):
    """The parts of a model that its modules are written from."""

    contract: Contract
    hidden_size: int
    pooling: Pooling  # cut to the layers that are written
    norm: nn.Module | None  # the final norm of a pre-norm backbone
    prompt_lengths: dict[str, int]  # see `miscounted_prompts`
    rotation: Mapping[int, Tensor] = {}  # by layer, (dim, W), of the layers that are written
    turned: bool = False  # a decoder made bidirectional: older versions would read it as causal

    @property
    def inner(self) -> Pooling:
        """The pooling without what follows it."""
        return cast(Pooling, getattr(self.pooling, "pooling", self.pooling))

    @property
    def steps(self) -> list[Any]:
        """What follows the pooling."""
        return list(getattr(self.pooling, "steps", ()))

    @property
    def names(self) -> list[str]:
        """The poolings whose vectors are joined; one as a rule. Behind gates it is the mean."""
        named = "mean" if self.queries is not None else self.inner.name
        return str(self.inner.settings().get("of", named)).split("+")

    @property
    def queries(self) -> Tensor | None:
        """What opens the gates of a gated mean, (L, H)."""
        return self.inner.queries.detach().cpu() if isinstance(self.inner, GatedMean) else None

    @property
    def pooled_width(self) -> int:
        """Coordinates before the truncation."""
        return pooled_width(self.pooling, self.hidden_size)

    @property
    def is_plain(self) -> bool:
        """Whether modules of sentence-transformers give the same vectors."""
        whole = self.contract.pool_prompt
        # It counts the weights of a weighted mean from the first token of a prompt that is left out.
        return set(self.names) <= set(sentence_transformers_keys()) and (
            whole or ("weighted_mean" not in self.names and not self.prompt_lengths)
        )


def write_layout(folder: Path, shipped: Shipped) -> None:
    """Write the modules after the Transformer, and what sentence-transformers reads beside it.

    The Hugging Face model and tokenizer are in the folder already.

    Raises:
        InputError: for a pooling that is not of this package, whose source cannot be shipped.
    """
    contract = shipped.contract
    if contract.pooling not in POOLINGS:
        raise InputError(
            f"pooling {contract.pooling!r} is none of {', '.join(sorted(POOLINGS))}, which a saved folder "
            "can hold: write it in embedtrain/model/pooling, under `@register`"
        )
    dtype = getattr(torch, contract.dtype)
    modules: list[tuple[str, Callable[[Path], None]]] = []
    if shipped.is_plain:
        gates = [] if shipped.queries is None else [("Dense", partial(_write_gate, shipped.queries, dtype))]
        modules += [*gates, ("Pooling", partial(_write_pooling, shipped))]
    else:
        modules.append(("StatePooling", partial(_write_state_pooling, shipped)))
    modules += [(_STEP_TYPES[step.kind], partial(_write_step, step, dtype)) for step in shipped.steps]
    if shipped.rotation or contract.width < shipped.pooled_width:
        modules.append(("Dense", partial(_write_step, _last_layer(shipped), dtype)))
    if contract.normalize:
        modules.append(("Normalize", lambda folder: None))
    first = NEWER_TRANSFORMER if shipped.turned else _type("Transformer")
    entries = [{"idx": 0, "name": "0", "path": "", "type": first}]
    for position, (name, write) in enumerate(modules, start=1):
        path = f"{position}_{name}"
        entries.append({"idx": position, "name": str(position), "path": path, "type": _type(name)})
        write(folder / path)
    write_json(folder / MODULES, entries)
    write_rotation(folder, shipped.rotation)
    _write_settings(folder, shipped)


def miscounted_prompts(process: TextTokenizer) -> dict[str, int]:
    """For prompts that sentence-transformers counts wrongly: its number of tokens, as text, to the right one.

    It tokenises a prompt alone, and so finds a token for the space that a text would have taken in. Only of
    account where prompts are not pooled; empty otherwise.

    Raises:
        InputError: when one number would have to mean two.
    """
    if process.include_prompt:
        return {}
    right: dict[str, int] = {}
    for prompt in process.prompts.values():
        ids = process.tokenizer(prompt, truncation=False)["input_ids"]
        counted = str(len(ids) - (ids[-1] in process.tokenizer.all_special_ids))
        here = process.read(["a"], "query", [prompt])[0].prompt_len
        if right.setdefault(counted, here) != here:
            raise InputError(
                f"sentence-transformers would skip {counted} tokens for two prompts, of which one has "
                f"{right[counted]} and {prompt!r} has {here}: end both in the same way (a colon and no "
                "space), or set include_prompt=true"
            )
    return {counted: here for counted, here in right.items() if counted != str(here)}


def _type(name: str) -> str:
    return STATE_POOLING if name == "StatePooling" else f"sentence_transformers.models.{name}"


def _write_settings(folder: Path, shipped: Shipped) -> None:
    """What the Transformer module and the model as a whole read."""
    contract = shipped.contract
    settings: dict[str, object] = {"max_seq_length": contract.max_length, "do_lower_case": False}
    if shipped.pooling.needs_all_layers:
        settings["config_args"] = {"output_hidden_states": True}
    write_json(folder / "sentence_bert_config.json", settings)
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "__version__": {
                "sentence_transformers": version("sentence-transformers"),
                "transformers": version("transformers"),
                "pytorch": torch.__version__,
            },
            "prompts": contract.prompts,
            "default_prompt_name": contract.default_prompt,
            "similarity_fn_name": "cosine",
        },
    )


def _write_pooling(shipped: Shipped, folder: Path) -> None:
    contract, keys = shipped.contract, sentence_transformers_keys()
    modes: dict[str, object] = {key: name in shipped.names for name, key in keys.items()}
    asked = [as_mode(keys[name]) for name in shipped.names]
    if asked != [mode for mode in ST_ORDER if mode in asked]:
        modes = {"pooling_mode": asked}  # an order of its own, which versions before 6 cannot be told
    include = {} if contract.pool_prompt else {"include_prompt": False}
    write_json(folder / "config.json", {"word_embedding_dimension": shipped.hidden_size, **modes, **include})


def _write_state_pooling(shipped: Shipped, folder: Path) -> None:
    """The module's own folder and, at the top, where sentence-transformers looks for them, the sources."""
    contract, inner = shipped.contract, shipped.inner
    over_layers = shipped.norm is not None and shipped.pooling.needs_all_layers
    norm = state_norm(cast(nn.Module, shipped.norm), shipped.hidden_size) if over_layers else None
    module = StatePooling(
        inner.name,
        inner.settings(),
        shipped.hidden_size,
        contract.num_layers,
        include_prompt=contract.pool_prompt,
        prompt_lengths=shipped.prompt_lengths,
        norm=None if norm is None else {"kind": norm.kind, "eps": norm.eps, "bias": norm.bias is not None},
    )
    module.pooling, module.norm = cast(nn.Module, inner), norm
    folder.mkdir()
    module.save(str(folder))
    for name, text in shipped_sources().items():
        (folder.parent / name).write_text(text, encoding="utf-8")


def _last_layer(shipped: Shipped) -> Dense:
    """A layer that keeps the first `dim` coordinates, of the rotated vector where there is a rotation."""
    width, pooled = shipped.contract.width, shipped.pooled_width
    turned = shipped.rotation.get(shipped.contract.num_layers, torch.eye(width, pooled))
    with torch.device("meta"):
        layer = Dense(pooled, width, bias=False, activation="Identity")
    layer.linear.weight = nn.Parameter(padded(turned, pooled))  # (dim, P)
    return layer


def _write_gate(queries: Tensor, dtype: torch.dtype, folder: Path) -> None:
    """The layer of each token that opens gates by the last of the queries (L, H), and all of them."""
    width = queries.shape[1]
    with torch.device("meta"):
        layer = Dense(width, 2 * width, bias=True, activation="GLU")
    layer.linear.load_state_dict(as_glu(queries[-1]), assign=True)
    _write_step(layer, dtype, folder)
    config = read_object(folder / "config.json")
    write_json(folder / "config.json", config | {"module_input_name": TOKENS})
    save_file({"queries": queries.contiguous()}, folder / QUERIES)


def _write_step(step: nn.Module, dtype: torch.dtype, folder: Path) -> None:
    """The folder of a module behind the pooling, in the dtype of the states that reach it elsewhere."""
    state = {name: value.detach().cpu().to(dtype).contiguous() for name, value in step.state_dict().items()}
    if isinstance(step, Dense):
        linear = step.linear
        config: dict[str, object] = {
            "in_features": linear.in_features,
            "out_features": linear.out_features,
            "bias": linear.bias is not None,
            "activation_function": f"{type(step.activation).__module__}.{type(step.activation).__name__}",
        }
        # Versions before 5.7 know no such key.
        write_json(folder / "config.json", config | ({"use_residual": True} if step.adds_input else {}))
    elif state:
        write_json(folder / "config.json", {"dimension": len(next(iter(state.values())))})
    if state:
        save_file(state, folder / "model.safetensors")
