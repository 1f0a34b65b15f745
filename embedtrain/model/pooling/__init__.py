"""One vector per text from the states of its tokens, at any layer. Letters: M texts, T tokens, H width.

All of a pooling that decides a vector is its name, its `settings()` and its state dict. The files beside this
one import torch, the standard library and each other only, so that `pooling_sources` can ship them with a
model, for use without embedtrain. All of them are imported here, which registers their poolings.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor

from embedtrain.model.pooling.gated import GatedMean
from embedtrain.model.pooling.joined import Concat, Projected
from embedtrain.model.pooling.latent_attention import LatentAttention
from embedtrain.model.pooling.plain import (
    POOLINGS,
    Cls,
    LastToken,
    Max,
    Mean,
    MeanSqrt,
    Setting,
    WeightedMean,
    built,
)
from embedtrain.model.pooling.trainable import LastLayer, MultiLayer
from embedtrain.types import InputError


@runtime_checkable
class Pooling(Protocol):
    """States after blocks 1..layer to one vector per text; an `nn.Module`.

    One that uses only the state after block `layer` says `needs_all_layers = False` and may be given that
    state alone. One that sentence-transformers has too says by which key, as `sentence_transformers_key`. One
    whose vectors are wider or narrower than the states says how wide, as `width`.
    """

    name: ClassVar[str]  # what folders and configs call it
    needs_all_layers: ClassVar[bool]

    @property
    def needs_eos(self) -> bool:
        """Whether every text must end in an end token."""
        ...

    def __call__(self, hiddens: Sequence[Tensor], mask: Tensor, layer: int) -> Tensor:
        """(M, H), or (M, `width`): float32, float64 from float64.

        Args:
            hiddens: the states after blocks 1..layer, or the last of them alone; each (M, T, H), the final
                norm applied.
            mask: (M, T) bool, True on the tokens that are pooled.
            layer: blocks that were run.
        """
        ...

    def settings(self) -> dict[str, Setting]:
        """What `named_pooling`, with the name, `hidden_size` and `num_layers`, builds it from again."""
        ...

    def cut(self, layer: int) -> Pooling:
        """What a backbone of blocks 1..layer needs: itself, or a smaller copy with the same vectors."""
        ...

    def restrict(self, layers: Collection[int], *, varying: bool) -> None:
        """Freeze what a run that only trains `layers` never trains. The optimiser is built after that.

        Args:
            layers: all layers that the plan may train.
            varying: whether some step trains fewer of them than that.

        Raises:
            ValueError: when the pooling cannot be trained by a varying plan.
        """
        ...


for _file in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_file.name}")


def sentence_transformers_keys() -> dict[str, str]:
    """Name to key in a `Pooling` module's config, of the poolings that sentence-transformers has."""
    keys = {name: getattr(kind, "sentence_transformers_key", None) for name, kind in POOLINGS.items()}
    return {name: key for name, key in sorted(keys.items()) if key is not None}


def named_pooling(name: str, *, hidden_size: int, num_layers: int, **settings: Any) -> Pooling:  # noqa: ANN401
    """The pooling a folder or config names, for a backbone of this width and number of blocks.

    Raises:
        InputError: for an unknown name, with the known ones; a setting it does not have, with those it has;
            or a value it refuses.
    """
    if name not in POOLINGS:
        raise InputError(f"pooling {name!r} is not supported; supported are {', '.join(sorted(POOLINGS))}")
    known = sorted(_keywords(POOLINGS[name]) - {"hidden_size", "num_layers"})
    for key in settings:
        if key not in known:
            raise InputError(f"pooling {name!r} has no setting {key!r}; it has {', '.join(known) or 'none'}")
    try:
        pooling = built(name, settings, hidden_size=hidden_size, num_layers=num_layers)
    except (TypeError, ValueError) as error:
        raise InputError(f"pooling {name!r} refuses its settings {settings}: {error}") from error
    assert isinstance(pooling, Pooling)
    return pooling


def pooled_width(pooling: Pooling, hidden_size: int) -> int:
    """Coordinates of the vectors that a pooling makes of states of `hidden_size`."""
    return int(getattr(pooling, "width", hidden_size))


def pool_mask(mask: Tensor, prompt_len: Tensor) -> Tensor:
    """Real tokens after the prompt, (M, T) bool, from `mask` (M, T) and `prompt_len` (M,).

    Counted over real tokens, so it holds on either padding side.
    """
    return mask & (mask.cumsum(1) > prompt_len.unsqueeze(1))


def pooling_sources() -> dict[str, str]:
    """File name to text of the files that define the poolings, their imports of each other made relative.

    A folder with these files needs torch and the standard library only; `from .plain import Mean` and so on.
    """
    package = f"from {__name__}."
    files = sorted(path for path in Path(__file__).parent.glob("*.py") if path.name != "__init__.py")
    return {path.name: path.read_text("utf-8").replace(package, "from .") for path in files}


def _keywords(kind: type) -> set[str]:
    """Keyword-only parameters; nn.Module's own are variadic."""
    parameters = inspect.signature(kind).parameters.values()
    return {item.name for item in parameters if item.kind is inspect.Parameter.KEYWORD_ONLY}


__all__ = [
    "POOLINGS",
    "Cls",
    "Concat",
    "GatedMean",
    "LastLayer",
    "LastToken",
    "LatentAttention",
    "Max",
    "Mean",
    "MeanSqrt",
    "MultiLayer",
    "Pooling",
    "Projected",
    "Setting",
    "WeightedMean",
    "named_pooling",
    "pool_mask",
    "pooled_width",
    "pooling_sources",
    "sentence_transformers_keys",
]
