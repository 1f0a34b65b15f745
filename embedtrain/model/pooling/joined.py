"""Poolings made of others: several side by side, and one with layers behind it, as sentence-transformers has.

Letters: M texts, T tokens, H hidden width, D width of the vectors.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedtrain.model.pooling.plain import POOLINGS, Setting, built, register


@register
class Concat(nn.Module):
    """Several poolings without settings, one behind the other: (M, D), D of H for each.

    Args:
        hidden_size: H.
        of: their names, joined by "+".

    Raises:
        ValueError: for a name that is no pooling without settings.
    """

    name: ClassVar[str] = "concat"
    needs_all_layers: ClassVar[bool] = False

    def __init__(self, *, hidden_size: int, of: str = "cls+mean") -> None:
        super().__init__()
        self.names = of.split("+")
        kinds = [POOLINGS.get(name) for name in self.names]
        plain = sorted(name for name, kind in POOLINGS.items() if hasattr(kind, "sentence_transformers_key"))
        if strange := [name for name in self.names if name not in plain]:
            raise ValueError(f"of must join some of {', '.join(plain)} by +, got {strange[0]!r}")
        self.parts = nn.ModuleList(cast("type[nn.Module]", kind)() for kind in kinds)
        self.width = len(kinds) * hidden_size

    @property
    def needs_eos(self) -> bool:
        """Whether one of them needs an end token."""
        return any(cast(Any, part).needs_eos for part in self.parts)

    def forward(self, hiddens: Sequence[Tensor], mask: Tensor, layer: int) -> Tensor:
        """(M, D) from the last of `hiddens` (M, T, H) and `mask` (M, T) bool."""
        return torch.cat([part(hiddens, mask, layer) for part in self.parts], dim=-1)

    def settings(self) -> dict[str, Setting]:
        """What, with `hidden_size`, builds it again."""
        return {"of": "+".join(self.names)}

    def cut(self, layer: int) -> Concat:
        """The pooling itself: nothing of it depends on the layer."""
        return self

    def restrict(self, layers: Collection[int], *, varying: bool) -> None:
        """Do nothing: there is no parameter that a plan could leave out."""


class Dense(nn.Module):
    """A linear layer, an activation of torch.nn and perhaps the input once more: (M, out) from (M, in).

    Args:
        in_features: width of what comes.
        out_features: width of what is given.
        bias: whether a bias is added.
        activation: name of a module in torch.nn that needs no argument.
        residual: add the input, through a linear layer where the widths differ.

    Raises:
        ValueError: for an activation that torch.nn lacks.
    """

    kind: ClassVar[str] = "dense"

    def __init__(
        self, in_features: int, out_features: int, *, bias: bool, activation: str, residual: bool = False
    ) -> None:
        super().__init__()
        module = getattr(nn, activation, None)
        if not (isinstance(module, type) and issubclass(module, nn.Module)):
            raise ValueError(f"activation must be a module of torch.nn, got {activation!r}")
        self.linear = nn.Linear(in_features, out_features, bias=bias)
        self.activation = module()
        self.adds_input = residual
        if residual and in_features != out_features:
            self.residual = nn.Linear(in_features, out_features, bias=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """(M, out) from (M, in)."""
        given: Tensor = self.activation(self.linear(vectors))
        if not self.adds_input:
            return given
        return given + (self.residual(vectors) if hasattr(self, "residual") else vectors)


class LayerNorm(nn.Module):
    """A LayerNorm of vectors of `width` coordinates."""

    kind: ClassVar[str] = "layer_norm"

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, vectors: Tensor) -> Tensor:
        """(M, width) from (M, width)."""
        return cast(Tensor, self.norm(vectors))


class Normalize(nn.Module):
    """Vectors to length one."""

    kind: ClassVar[str] = "normalize"

    def forward(self, vectors: Tensor) -> Tensor:
        """(M, D) from (M, D)."""
        return F.normalize(vectors, dim=-1)


STEPS: dict[str, type[nn.Module]] = {kind.kind: kind for kind in (Dense, LayerNorm, Normalize)}


@register
class Projected(nn.Module):
    """A pooling and what follows it, applied to the vector of every layer: (M, D) of the last step.

    A cut to `dim` keeps the leading coordinates of the last step's vector. Gradients reach all steps.

    Args:
        hidden_size: H.
        num_layers: blocks of the backbone.
        pooling: name of the pooling.
        settings: of the pooling.
        steps: for each step its `kind`, a key of STEPS, and its arguments.

    Raises:
        ValueError: for an unknown pooling or kind, and widths that do not fit each other.
    """

    name: ClassVar[str] = "projected"

    def __init__(
        self,
        *,
        hidden_size: int,
        num_layers: int,
        pooling: str = "mean",
        settings: Mapping[str, Any] | None = None,
        steps: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS or pooling == self.name:
            raise ValueError(f"pooling must name another pooling, got {pooling!r}")
        size = {"hidden_size": hidden_size, "num_layers": num_layers}
        self.pooling: nn.Module = built(pooling, dict(settings or {}), **size)
        self.described = [_whole(step) for step in steps]
        self.steps = nn.ModuleList(_step(step) for step in self.described)
        self.width = int(getattr(self.pooling, "width", hidden_size))
        for step in self.described:
            given = step.get("in_features", step.get("width", self.width))
            if given != self.width:
                raise ValueError(f"step {step} must take vectors of {self.width} coordinates, not {given}")
            self.width = step.get("out_features", self.width)
        self.needs_all_layers = cast(Any, self.pooling).needs_all_layers

    @property
    def needs_eos(self) -> bool:
        """Whether the pooling needs an end token."""
        return bool(cast(Any, self.pooling).needs_eos)

    def forward(self, hiddens: Sequence[Tensor], mask: Tensor, layer: int) -> Tensor:
        """(M, D) from `hiddens`, each (M, T, H), and `mask` (M, T) bool."""
        vectors: Tensor = self.pooling(hiddens, mask, layer)
        for step in self.steps:
            vectors = step(vectors.to(next(step.parameters(), vectors).dtype))
        return vectors

    def settings(self) -> dict[str, Setting]:
        """What, with `hidden_size` and `num_layers`, builds it again."""
        inner = cast(Any, self.pooling)
        return {"pooling": inner.name, "settings": inner.settings(), "steps": self.described}

    def cut(self, layer: int) -> Projected:
        """Itself, or a copy with the same steps around the smaller pooling."""
        inner = cast(Any, self.pooling).cut(layer)
        if inner is self.pooling:
            return self
        smaller = Projected.__new__(Projected)
        nn.Module.__init__(smaller)
        smaller.pooling, smaller.steps, smaller.described = inner, self.steps, self.described
        smaller.width, smaller.needs_all_layers = self.width, self.needs_all_layers
        return smaller

    def restrict(self, layers: Collection[int], *, varying: bool) -> None:
        """Freeze what the pooling has for other layers; the steps serve all of them."""
        cast(Any, self.pooling).restrict(layers, varying=varying)


def _whole(step: Mapping[str, Any]) -> dict[str, Any]:
    """A step with the defaults of its kind, so that equal steps have equal descriptions."""
    return {"residual": False, **step} if step.get("kind") == Dense.kind else dict(step)


def _step(described: Mapping[str, Any]) -> nn.Module:
    """A step from its kind and arguments."""
    settings = dict(described)
    kind = settings.pop("kind", None)
    if kind not in STEPS:
        raise ValueError(f"kind of a step must be one of {', '.join(STEPS)}, got {kind!r}")
    return STEPS[kind](**settings)
