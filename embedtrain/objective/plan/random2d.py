"""A random layer at a random dim beside the last layer at a random dim: 2D Matryoshka."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from embedtrain.objective.plan.draw import draw, generator_at
from embedtrain.objective.plan.sizes import (
    check_count,
    check_layer,
    check_weight,
    full_model,
    warn_of_untrained,
    weighted_dims,
)
from embedtrain.types import Chosen, InputError, SubModel, Weighted

# Weight of the i-th candidate layer, i = 0 for the first.
LAYER_WEIGHTINGS: Mapping[str, Callable[[int], float]] = {
    "uniform": lambda place: 1.0,
    "log": lambda place: 1 / (1 + math.log(1 + place)),
    "linear": lambda place: 1 / (1 + place),
}


class Random2d:
    """2DMSE (Li et al. 2024, 2402.14776) as Matryoshka2dLoss of sentence-transformers 6.2 trains it.

    With M(l) = Σ weight_d · loss(l, d) over dims drawn anew for each layer, S the drawn layers, g the layer
    weighting and i(l) the place of layer l among the candidates first_layer..num_layers-1, counted from 0:

        last_layer_weight · M(num_layers) + Σ_{l in S} g(i(l)) / |S| · prior_layers_weight · M(l)

    Its distillation is `distillation.LayerKL`. The full model itself is trained only
    when the last layer draws the full width, as there; `Grid(per_step=...)` always trains it.
    """

    def __init__(
        self,
        dims: Sequence[int] | None = None,
        weights: Sequence[float] | None = None,
        *,
        num_layers: int,
        width: int,
        layers_per_step: int = 1,
        dims_per_step: int = 1,
        last_layer_weight: float = 1.0,
        prior_layers_weight: float = 1.0,
        layer_weighting: str = "uniform",
        first_layer: int = 1,
        seed: int = 0,
    ) -> None:
        """Choose what is drawn, and the weights.

        Args:
            dims: leading coordinates in any order; the width and its halves down to 32 when left out.
            weights: one for each of `dims` in their order, 1 each when left out.
            num_layers: blocks of the model.
            width: embedding width of the model.
            layers_per_step: layers drawn beside the last, -1 for all.
            dims_per_step: dims drawn for each of those layers, -1 for all.
            last_layer_weight: see the formula.
            prior_layers_weight: see the formula.
            layer_weighting: g(i): "uniform" 1, "log" 1 / (1 + ln(1 + i)), "linear" 1 / (1 + i).
            first_layer: the shallowest candidate. 0 is the embedding output, which sentence-transformers
                trains as well; it is here for comparison with it and is no cut that can be exported.
            seed: of the draws.

        Raises:
            InputError: on a setting outside its range.
        """
        full = full_model(num_layers, width)
        self._dims = weighted_dims(dims, weights, full)
        warn_of_untrained(self._dims, width)
        if layer_weighting not in LAYER_WEIGHTINGS:
            raise InputError(
                f"layer_weighting must be one of {list(LAYER_WEIGHTINGS)}, got {layer_weighting!r}"
            )
        self._weigh = LAYER_WEIGHTINGS[layer_weighting]
        self._first = check_layer("first_layer", first_layer, full, lowest=0)
        self._candidates = range(self._first, num_layers)
        if not self._candidates and num_layers > 1:
            raise InputError(
                f"first_layer must be below the last layer, got {first_layer}: choose 0..{num_layers - 1}"
            )
        self._last = num_layers
        self._layers_per_step = check_count("layers_per_step", layers_per_step)
        self._dims_per_step = check_count("dims_per_step", dims_per_step)
        self._last_weight = check_weight("last_layer_weight", last_layer_weight)
        self._prior_weight = check_weight("prior_layers_weight", prior_layers_weight)
        self._seed = seed
        self.sub_models = tuple(
            SubModel(layer, dim)
            for layer in range(max(self._first, 1), num_layers + 1)  # no cut can be made at 0
            for dim, _ in self._dims
        )

    def __call__(self, step: int) -> Chosen:
        """The drawn layers ascending, the last layer at the end."""
        generator = generator_at(self._seed, step)
        layers = draw(self._candidates, self._layers_per_step, generator)
        weight_of = {
            layer: self._weigh(layer - self._first) / len(layers) * self._prior_weight for layer in layers
        }
        weight_of[self._last] = self._last_weight
        return tuple(
            Weighted(SubModel(layer, dim), weight * dim_weight)
            for layer, weight in weight_of.items()
            for dim, dim_weight in draw(self._dims, self._dims_per_step, generator)
        )
