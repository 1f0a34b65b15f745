"""Plans that train the same sub-models at every step."""

from __future__ import annotations

from collections.abc import Sequence

from embedtrain.objective.plan.sizes import (
    check_dim,
    check_distinct,
    check_layer,
    check_weights,
    even_pairs,
    full_model,
    warn_of_untrained,
    weighted_dims,
)
from embedtrain.types import Chosen, InputError, SubModel, Weighted


class Full:
    """The uncut model alone: ordinary training."""

    def __init__(self, *, num_layers: int, width: int) -> None:
        self.sub_models = (full_model(num_layers, width),)

    def __call__(self, step: int) -> Chosen:
        """The full model with weight 1."""
        return (Weighted(self.sub_models[0], 1.0),)


class Dims:
    """The last layer at several dims, each at every step (Matryoshka, Kusupati et al. 2022, 2205.13147)."""

    def __init__(
        self,
        dims: Sequence[int] | None = None,
        weights: Sequence[float] | None = None,
        *,
        num_layers: int,
        width: int,
    ) -> None:
        """Choose the dims.

        Args:
            dims: leading coordinates, each in 1..width, in any order; without them, the width and its halves
                down to 32.
            weights: one for each of `dims` in their order; 1 each when left out.
            num_layers: blocks of the model.
            width: embedding width of the model.

        Raises:
            InputError: on a dim outside 1..width or named twice, or weights that do not fit.
        """
        full = full_model(num_layers, width)
        sized = weighted_dims(dims, weights, full)
        warn_of_untrained(sized, width)
        self._chosen = tuple(Weighted(SubModel(num_layers, dim), weight) for dim, weight in sized)
        self.sub_models = tuple(item.sub for item in self._chosen)

    def __call__(self, step: int) -> Chosen:
        """Every dim, ascending."""
        return self._chosen


class FixedPairs:
    """A few (layer, dim) pairs, all at every step (Starbucks, Zhuang et al. 2024, 2410.13230)."""

    def __init__(
        self,
        pairs: Sequence[Sequence[int]] | None = None,
        weights: Sequence[float] | None = None,
        *,
        num_layers: int,
        width: int,
    ) -> None:
        """Choose the pairs.

        Args:
            pairs: [layer, dim] each, in any order, the full model among them; without them, up to six evenly
                spread layers with dims growing geometrically (`sizes.even_pairs`).
            weights: one for each of `pairs` in their order; 1 each when left out, as in the paper.
            num_layers: blocks of the model.
            width: embedding width of the model.

        Raises:
            InputError: on a pair that the model cannot be cut to, twice the same, the full model missing, or
                weights that do not fit.
        """
        full = full_model(num_layers, width)
        subs = even_pairs(full) if pairs is None else tuple(_sub_model(pair, full) for pair in pairs)
        check_distinct("pairs", subs)
        weighing = check_weights("weights", weights, len(subs), "pairs")
        self._chosen = tuple(
            sorted(Weighted(sub, weight) for sub, weight in zip(subs, weighing, strict=True))
        )
        self.sub_models = tuple(item.sub for item in self._chosen)
        if self.sub_models[-1] != full:
            raise InputError(
                f"pairs must end with the full model: add [{num_layers}, {width}] "
                f"(the last is [{self.sub_models[-1].layer}, {self.sub_models[-1].dim}])"
            )

    def __call__(self, step: int) -> Chosen:
        """Every pair, ascending."""
        return self._chosen


def _sub_model(pair: Sequence[int], full: SubModel) -> SubModel:
    if not isinstance(pair, (list, tuple)) or len(pair) != 2:
        raise InputError(f"pairs must be [layer, dim] each, got {pair!r}")
    return SubModel(check_layer("pairs", pair[0], full), check_dim("pairs", pair[1], full))
