"""The product of layers and dims."""

from __future__ import annotations

from collections.abc import Sequence

from embedtrain.objective.plan.draw import draw, generator_at
from embedtrain.objective.plan.sizes import (
    check_count,
    check_distinct,
    check_layer,
    check_weights,
    full_model,
    weighted_dims,
)
from embedtrain.types import Chosen, InputError, SubModel, Weighted


class Grid:
    """Every cell of layers x dims at every step, or the full model and a few cells drawn from the step.

    A cell weighs layer weight · dim weight. Drawn cells keep that weight: with fewer per step each one's pull
    shrinks, the full model's does not.
    """

    def __init__(
        self,
        layers: Sequence[int] | None = None,
        dims: Sequence[int] | None = None,
        per_step: int | None = None,
        layer_weights: Sequence[float] | None = None,
        dim_weights: Sequence[float] | None = None,
        *,
        num_layers: int,
        width: int,
        seed: int = 0,
    ) -> None:
        """Choose the grid.

        Args:
            layers: blocks to run, `num_layers` among them; all of 1..num_layers when left out.
            dims: leading coordinates, `width` among them; the width and its halves down to 32 when left out.
            per_step: cells drawn at each step beside the full model; all of them when left out.
            layer_weights: one for each of `layers` in their order, 1 each when left out.
            dim_weights: one for each of `dims` in their order, 1 each when left out.
            num_layers: blocks of the model.
            width: embedding width of the model.
            seed: of the draws.

        Raises:
            InputError: on a layer or dim that the model has not, a grid without the full model, a `per_step`
                beyond the other cells, or weights that do not fit.
        """
        full = full_model(num_layers, width)
        if layers is None:
            layers = range(1, num_layers + 1)
        depths = [check_layer("layers", layer, full) for layer in layers]
        check_distinct("layers", depths)
        layer_weighing = check_weights("layer_weights", layer_weights, len(depths), "layers")
        sized = weighted_dims(dims, dim_weights, full, "dim_weights")
        if num_layers not in depths:
            raise InputError(f"layers must contain the last, got {depths}: add {num_layers}")
        if sized[-1][0] != width:
            raise InputError(
                f"dims must contain the full width, got {[dim for dim, _ in sized]}: add {width}"
            )
        *self._others, self._full = (
            Weighted(SubModel(layer, dim), by_layer * by_dim)
            for layer, by_layer in sorted(zip(depths, layer_weighing, strict=True))
            for dim, by_dim in sized
        )
        self.sub_models = (*(item.sub for item in self._others), full)
        if per_step is not None and not self._others:
            raise InputError(f"per_step must be left out, got {per_step}: the full model is the only cell")
        self._per_step = None if per_step is None else check_count("per_step", per_step, len(self._others))
        self._seed = seed

    def __call__(self, step: int) -> Chosen:
        """The cells of this step, ascending, the full model last."""
        if self._per_step is None:
            return (*self._others, self._full)
        return (*draw(self._others, self._per_step, generator_at(self._seed, step)), self._full)
