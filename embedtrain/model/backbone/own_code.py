"""Models whose code lies beside their weights (`auto_map`): where their blocks are, found by trying them.

Such code runs only where the user says `trust_remote_code=true`; transformers copies it into a package of its
own, by which its classes are known, and writes it into every folder that is saved.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.dynamic_module_utils import get_class_from_dynamic_module, get_relative_import_files

from embedtrain.files.reading import read_json
from embedtrain.model.backbone.attention import Attention, Forward
from embedtrain.model.backbone.families import Family
from embedtrain.model.modes import evaluating
from embedtrain.types import InputError, Inputs

HOME = "transformers_modules"  # where transformers imports code of folders
CURE = (
    "It runs only if you say so. Read it; if you trust it, say backbone.trust_remote_code=true in training, "
    "teacher.trust_remote_code=true or guide.trust_remote_code=true for theirs, and trust_remote_code=true "
    "where a command or function takes a model"
)
TEXT, PADDING = 4, 2  # tokens of a trial
CLOSE = 1e-4  # of the largest coordinate: padding takes other sums
Positions = Literal["from_zero", "after_padding", "relative"]


def is_own(thing: object) -> bool:
    """Whether a model or config is of a class that lay in a folder."""
    return type(thing).__module__.partition(".")[0] == HOME


def auto_map(file: Path) -> dict[str, Any]:
    """The code that a config.json or tokenizer_config.json names: class of transformers -> file and class.

    Raises:
        InputError: for a file that is damaged.
    """
    said = read_json(file, "Fetch or save the model again") if file.is_file() else {}
    found = said.get("auto_map") if isinstance(said, dict) else None
    return found if isinstance(found, dict) else {}


def own_class(kind: str, said: Mapping[str, Any], folder: Path) -> Any:  # noqa: ANN401 - whatever lies there
    """The class of a folder that stands for one of transformers; this imports its file.

    Those of transformers would give the class of the last folder that had the same config.

    Raises:
        InputError: where the folder names none.
    """
    if kind not in said:
        raise InputError(f"{folder / 'config.json'} names no {kind} in auto_map: fetch the model again")
    found: Any = get_class_from_dynamic_module(str(said[kind]), folder)
    found.register_for_auto_class(kind)  # so that it is written into what is saved
    return found


def code_hash(model: PreTrainedModel) -> str | None:
    """16 hexadecimal digits of the source files of a model of its own code; None for any other."""
    files: dict[str, str] = {}
    for thing in filter(is_own, (model, model.config)):
        first = cast(str, sys.modules[type(thing).__module__].__file__)
        for file in (first, *get_relative_import_files(first)):
            files[Path(file).name] = Path(file).read_text("utf-8")
    return hashlib.sha256(json.dumps(sorted(files.items())).encode()).hexdigest()[:16] if files else None


def own_family(model: PreTrainedModel) -> Family:
    """Where a model of its own code keeps its blocks, and how it counts positions, found by running it.

    Raises:
        InputError: for a model of which no cut can be made, with the reason.
    """
    for name in ("num_hidden_layers", "hidden_size", "vocab_size"):
        if not isinstance(getattr(model.config, name, None), int):
            raise _refused(model, f"its config says no {name}")
    path = _block_path(model)
    with evaluating(model), torch.no_grad():
        trial = _Trial(model, path)
        try:
            return Family(
                blocks=path,
                final_norm=trial.final_norm(),
                positions=trial.positions(),
                decoder=trial.is_causal(),
                takes=trial.takes,
            )
        except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise _refused(model, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}") from error


def word_table(model: PreTrainedModel) -> nn.Embedding:
    """The embeddings of token ids of any model, which code of its own need not name.

    Raises:
        InputError: where there is none.
    """
    try:
        return cast(nn.Embedding, model.get_input_embeddings())
    except NotImplementedError as error:
        for part in model.modules():
            if isinstance(part, nn.Embedding) and part.num_embeddings >= model.config.vocab_size:
                return part
        raise _refused(model, "it has no nn.Embedding of vocab_size rows") from error


def check_cuts(forward: Forward, model: PreTrainedModel, found: Attention, wanted: Attention | None) -> None:
    """Raises InputError unless a model of its own code computes the same cut as whole.

    Args:
        forward: tokens and layers to the states after these; it stops at the deepest.
        model: what runs in it.
        found: its attention.
        wanted: that which is asked for, if any.
    """
    if wanted not in (None, found):
        raise InputError(
            f"model type {model.config.model_type!r} has {found} attention in its code: leave out attention"
        )
    size, count = model.config.vocab_size, model.config.num_hidden_layers
    ids = torch.arange(1, TEXT + 1)[None] * size // (TEXT + 2)  # (1, T)
    tokens = Inputs(ids, torch.ones_like(ids, dtype=torch.bool), torch.zeros(1, dtype=torch.int64))
    tokens = tokens.to_device(model.device)
    layers = tuple(range(1, count + 1))
    with torch.no_grad():
        for layer, state in zip(layers, forward(tokens, layers), strict=True):
            if not torch.allclose(state, forward(tokens, (layer,))[0], rtol=CLOSE, atol=CLOSE):
                raise _refused(model, f"its first {layer} blocks alone give another state than in the whole")


def _refused(model: PreTrainedModel, reason: str) -> InputError:
    kind = f"model type {model.config.model_type!r}, whose code is its own,"
    return InputError(f"{kind} cannot be cut into layers: {reason}")


def _block_path(model: PreTrainedModel) -> str:
    """The one list of modules that has as many as there are layers, and lies in no other list."""
    lists = {name: part for name, part in model.named_modules() if isinstance(part, nn.ModuleList)}
    outer = {
        name: part
        for name, part in lists.items()
        if not any(name.startswith(f"{other}.") for other in lists if other != name)
    }
    found: list[str] = [name for name, part in outer.items() if len(part) == model.config.num_hidden_layers]
    if len(found) != 1:
        raise _refused(
            model,
            f"{len(found)} of its lists of modules have {model.config.num_hidden_layers} entries, as "
            f"num_hidden_layers says, and one should ({', '.join(outer) or 'it has no list'})",
        )
    return found[0]


class _Trial:
    """A model on texts of a few tokens."""

    def __init__(self, model: PreTrainedModel, path: str) -> None:
        self.model, self.path = model, path
        names = inspect.signature(model.forward).parameters
        every = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in names.values())
        ours = ("input_ids", "attention_mask", "position_ids", "return_dict", "use_cache")
        self.takes = frozenset(name for name in ours if every or name in names)
        size = model.config.vocab_size
        self.ids = torch.tensor([[place * size // (TEXT + 2) for place in range(1, TEXT + 1)]])  # (1, T)
        self.last = self._run(self.ids)  # (1, T, H)

    def final_norm(self) -> str | None:
        """The module between the last block and what the model gives; None where there is none."""
        calls: list[tuple[str, Tensor, Tensor]] = []
        last = f"{self.path}.{self.model.config.num_hidden_layers - 1}"

        def hook(name: str) -> Any:  # noqa: ANN401
            def keep(_module: nn.Module, args: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401
                output = output[0] if isinstance(output, tuple) else output
                if args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
                    calls.append((name, args[0], output))

            return keep

        watched = {
            name: part
            for name, part in self.model.named_modules()
            if name == last or not f"{name}.".startswith(f"{self.path}.")
        }
        handles = [part.register_forward_hook(hook(name)) for name, part in watched.items() if name]
        try:
            self._run(self.ids)
        finally:
            for handle in handles:
                handle.remove()
        state = next((output for name, _, output in calls if name == last), None)
        if state is None:
            raise _refused(self.model, f"{last} gives no tensor, or is given none by position")
        if torch.equal(state, self.last):
            return None
        for name, given, output in calls:
            if given.shape == state.shape and torch.equal(given, state) and torch.equal(output, self.last):
                return name
        raise _refused(self.model, "it gives neither the state after its last block nor a norm of that")

    def positions(self) -> Positions:
        """How it numbers tokens that nobody numbers for it."""
        counted = torch.arange(TEXT)[None]
        pad = getattr(self.model.config, "pad_token_id", None) or 0
        found: Positions | None = None
        if "position_ids" in self.takes:
            if torch.equal(self._run(self.ids, position_ids=counted), self.last):
                found = "from_zero"
            elif torch.equal(self._run(self.ids, position_ids=counted + pad + 1), self.last):
                found = "after_padding"
        start = 1 + pad if found == "after_padding" else 0
        mask = torch.tensor([[0] * PADDING + [1] * TEXT])
        ids = torch.cat([torch.full((1, PADDING), pad), self.ids], dim=1)
        placed = {} if found is None else {"position_ids": (mask.cumsum(1) - 1).clamp(min=0) + start}
        padded = self._run(ids, mask, **placed)[:, PADDING:]
        if (padded - self.last).abs().max() > CLOSE * self.last.abs().max():
            raise _refused(self.model, "padding on the left changes its vectors, with position_ids too")
        return found or "relative"

    def is_causal(self) -> bool:
        """Whether the first token does not see the last one."""
        other = self.ids.clone()
        other[0, -1] = (TEXT + 1) * self.model.config.vocab_size // (TEXT + 2)
        return torch.equal(self._run(other)[:, 0], self.last[:, 0])

    def _run(self, ids: Tensor, mask: Tensor | None = None, **more: Tensor) -> Tensor:
        given: Mapping[str, Any] = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids) if mask is None else mask,
            "return_dict": True,
            "use_cache": False,
            **more,
        }
        device = self.model.device
        moved = {
            name: value.to(device) if isinstance(value, Tensor) else value
            for name, value in given.items()
            if name in self.takes
        }
        result: Tensor = self.model(**moved).last_hidden_state
        return result.cpu()
