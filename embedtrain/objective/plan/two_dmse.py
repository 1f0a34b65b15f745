"""A random layer and the last, each at full width and at one random dim: 2DMSE as its authors coded it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from embedtrain.objective.plan.draw import draw, generator_at
from embedtrain.objective.plan.sizes import check_dim, check_distinct, full_model
from embedtrain.types import Chosen, InputError, SubModel, Weighted

SMALLEST = 8  # of the default dims, which double from there

# Version of the authors' code -> weight of the drawn layer.
VERSIONS: Mapping[str, Callable[[int], float]] = {
    "v0.3.5": lambda layer: 1.0,
    "v0.3.10": lambda layer: 1 / layer,
}


class TwoDMSE:
    """2DMSE (Li et al. 2024, 2402.14776 v1): four sub-models a step, (L, D), (L, k), (l, D) and (l, k).

    The layer l is drawn from 1..L-1, the dim k from 8, 16, 32, ... below the width. The last layer weighs 1,
    the drawn one 1 (v0.3.5) or 1 / l (v0.3.10). Its distillation is `LayerKL` with
    temperature 1, detach_teacher=false and power 2 (v0.3.5) or 1 (v0.3.10). `Random2d` is what
    sentence-transformers made of it.
    """

    def __init__(
        self,
        dims: Sequence[int] | None = None,
        version: str = "v0.3.10",
        *,
        num_layers: int,
        width: int,
        seed: int = 0,
    ) -> None:
        """Choose what is drawn.

        Args:
            dims: below the width, one of them drawn at each step; 8, 16, 32, ... when left out.
            version: of the authors' code: "v0.3.5", or "v0.3.10", which divides losses of layer l by l.
            num_layers: blocks of the model, L.
            width: embedding width of the model, D.
            seed: of the draws.

        Raises:
            InputError: on a dim that is not below the width, or another version.
        """
        full = full_model(num_layers, width)
        if version not in VERSIONS:
            raise InputError(f"version must be one of {list(VERSIONS)}, got {version!r}")
        if dims is None:
            dims = [SMALLEST << place for place in range(width.bit_length()) if SMALLEST << place < width]
        self._dims = tuple(sorted(check_dim("dims", dim, full) for dim in dims))
        check_distinct("dims", self._dims)
        if self._dims[-1] == width:
            raise InputError(f"dims must be below the width {width}, which trains at every step: remove it")
        self._full, self._seed, self._weigh = full, seed, VERSIONS[version]
        self.sub_models = tuple(
            SubModel(layer, dim) for layer in range(1, num_layers + 1) for dim in (*self._dims, width)
        )

    def __call__(self, step: int) -> Chosen:
        """The drawn layer, then the last, each at the drawn dim and in full."""
        generator = generator_at(self._seed, step)
        layers = draw(range(1, self._full.layer), 1, generator)
        dims = (*draw(self._dims, 1, generator), self._full.dim)
        weights = {layer: self._weigh(layer) for layer in layers} | {self._full.layer: 1.0}
        return tuple(
            Weighted(SubModel(layer, dim), weight) for layer, weight in weights.items() for dim in dims
        )
