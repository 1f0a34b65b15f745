"""The files that make a Hugging Face folder one of sentence-transformers: its modules, prompts and settings.

Where sentence-transformers pools as we do, its own modules are named, and the folder loads everywhere. For
the other poolings, and for prompts whose tokens it would miscount, the folder brings `StatePooling` along,
which it loads with `trust_remote_code=True`.

A cut model truncates INSIDE: a `Dense` module whose weight is the first `dim` rows of the identity is put
between Pooling and Normalize. `truncate_dim` of sentence-transformers acts after the last module, so it
would leave vectors shorter than one; a `Dense` is a module of every version and needs no argument.

Module names and keys are those of sentence-transformers 2 to 5, which version 6 reads without a word.
"""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple, cast

import torch
from safetensors.torch import save_file
from torch import nn

from embedtrain.model.folder import shipped_pooling
from embedtrain.model.folder.contract import Contract
from embedtrain.model.folder.layout import MODULES, STATE_POOLING
from embedtrain.model.folder.shipped_pooling import PREFIX, StateNorm, StatePooling
from embedtrain.model.inputs.tokenizer import TextTokenizer
from embedtrain.model.pooling import POOLINGS, Pooling, pooling_sources, sentence_transformers_keys
from embedtrain.types import InputError


class Shipped(NamedTuple):
    """The parts of a model that its modules are written from."""

    contract: Contract
    hidden_size: int
    pooling: Pooling  # cut to the layers that are written
    norm: nn.Module | None  # the final norm of a pre-norm backbone
    prompt_lengths: dict[str, int]  # see `miscounted_prompts`

    @property
    def is_plain(self) -> bool:
        """Whether modules of sentence-transformers give the same vectors."""
        name, whole = self.contract.pooling, self.contract.pool_prompt
        # It counts the weights of a weighted mean from the first token of a prompt that is left out.
        return name in sentence_transformers_keys() and (
            whole or (name != "weighted_mean" and not self.prompt_lengths)
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
    types = ["Transformer", "Pooling" if shipped.is_plain else "StatePooling"]
    types += ["Dense"] if contract.width < shipped.hidden_size else []
    types += ["Normalize"] if contract.normalize else []
    paths = ["", *(f"{position}_{name}" for position, name in enumerate(types[1:], start=1))]
    entries = [
        {"idx": position, "name": str(position), "path": path, "type": _type(name)}
        for position, (path, name) in enumerate(zip(paths, types, strict=True))
    ]
    _write(folder / MODULES, entries)
    _write_settings(folder, shipped)
    (_write_pooling if shipped.is_plain else _write_state_pooling)(folder / paths[1], shipped)
    if "Dense" in types:
        _write_truncation(folder / paths[2], shipped)


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


def state_norm(norm: nn.Module, hidden_size: int) -> StateNorm:
    """A copy of a backbone's final norm that needs no code of the backbone.

    Raises:
        InputError: for a norm that is neither a LayerNorm nor an RMSNorm.
    """
    weight = cast(torch.Tensor, norm.weight).detach()
    bias = getattr(norm, "bias", None)
    eps = float(getattr(norm, "variance_epsilon", getattr(norm, "eps", 1e-6)))
    probe = torch.linspace(-3, 5, 2 * hidden_size).reshape(1, 2, hidden_size).to(weight)  # (1, 2, H)
    with torch.no_grad():
        expected = norm(probe).float()
        for kind, scale in (("layer", weight), ("rms", weight), ("rms", 1 + weight.float())):
            found = StateNorm(kind, hidden_size, eps, bias=bias is not None)
            found.weight = nn.Parameter(scale.clone())
            if bias is not None:
                found.bias = nn.Parameter(bias.detach().clone())
            # Gemma keeps its scale less one; which of the three it is, the values tell.
            if torch.allclose(
                found(probe).float(), expected, rtol=1e-2 if weight.dtype.itemsize < 4 else 1e-5
            ):
                return found.to(weight.device)
    raise InputError(f"cannot ship the final norm {type(norm).__name__} with a pooling over layers")


def _type(name: str) -> str:
    return STATE_POOLING if name == "StatePooling" else f"sentence_transformers.models.{name}"


def _write_settings(folder: Path, shipped: Shipped) -> None:
    """What the Transformer module and the model as a whole read."""
    contract = shipped.contract
    settings: dict[str, object] = {"max_seq_length": contract.max_length, "do_lower_case": False}
    if shipped.pooling.needs_all_layers:
        settings["config_args"] = {"output_hidden_states": True}
    _write(folder / "sentence_bert_config.json", settings)
    _write(
        folder / "config_sentence_transformers.json",
        {
            "__version__": {
                "sentence_transformers": version("sentence-transformers"),
                "transformers": version("transformers"),
                "pytorch": torch.__version__,
            },
            "prompts": contract.prompts,
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    )


def _write_pooling(folder: Path, shipped: Shipped) -> None:
    contract = shipped.contract
    modes = {key: name == contract.pooling for name, key in sentence_transformers_keys().items()}
    include = {} if contract.pool_prompt else {"include_prompt": False}
    _write(folder / "config.json", {"word_embedding_dimension": shipped.hidden_size, **modes, **include})


def _write_state_pooling(folder: Path, shipped: Shipped) -> None:
    """The module's own folder and, at the top, where sentence-transformers looks for them, the sources."""
    contract = shipped.contract
    over_layers = shipped.norm is not None and shipped.pooling.needs_all_layers
    norm = state_norm(cast(nn.Module, shipped.norm), shipped.hidden_size) if over_layers else None
    module = StatePooling(
        contract.pooling,
        contract.pooling_settings,
        shipped.hidden_size,
        contract.num_layers,
        include_prompt=contract.pool_prompt,
        prompt_lengths=shipped.prompt_lengths,
        norm=None if norm is None else {"kind": norm.kind, "eps": norm.eps, "bias": norm.bias is not None},
    )
    module.pooling, module.norm = cast(nn.Module, shipped.pooling), norm
    folder.mkdir()
    module.save(str(folder))
    for name, text in _sources(contract.pooling).items():
        (folder.parent / name).write_text(text, encoding="utf-8")


def _sources(pooling: str) -> dict[str, str]:
    """The files of `StatePooling` and the poolings, as one family that imports nothing of embedtrain.

    The file that registers `pooling` is imported, so that sentence-transformers fetches and runs it.
    """
    kind, package = POOLINGS[pooling], "from embedtrain.model.pooling."
    own = Path(shipped_pooling.__file__).read_text("utf-8")
    used = f"from {kind.__module__} import {kind.__name__} as _  # registers it\n"
    texts = {f"{PREFIX}{name}": text for name, text in pooling_sources().items()}
    own = own.replace(package, f"{used}{package}", 1).replace(package, "from .")
    texts[f"{STATE_POOLING.partition('.')[0]}.py"] = own
    return {name: re.sub(r"(?m)^from \.", f"from .{PREFIX}", text) for name, text in texts.items()}


def _write_truncation(folder: Path, shipped: Shipped) -> None:
    width, hidden_size = shipped.contract.width, shipped.hidden_size
    config = {
        "in_features": hidden_size,
        "out_features": width,
        "bias": False,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    _write(folder / "config.json", config)
    weight = torch.eye(width, hidden_size, dtype=getattr(torch, shipped.contract.dtype))  # (dim, H)
    save_file({"linear.weight": weight}, folder / "model.safetensors")


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
