"""The settings all plans share: layers, dims and weights, checked against the model, and their defaults."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from embedtrain.types import InputError, SubModel

log = logging.getLogger(__name__)

SMALLEST_DIM = 32  # of the default sizes; below it embeddings lose more than the memory is worth
MOST_PAIRS = 6  # Starbucks' number of sizes


def full_model(num_layers: int, width: int) -> SubModel:
    """The uncut model. Raises InputError if either number is below 1."""
    for setting, value in (("num_layers", num_layers), ("width", width)):
        if value < 1:
            raise InputError(f"{setting} must be at least 1, got {value}")
    return SubModel(num_layers, width)


def check_layer(setting: str, layer: object, full: SubModel, lowest: int = 1) -> int:
    """The layer, if the model has it; else InputError naming the setting."""
    return _within(setting, "layers", layer, lowest, full.layer, full)


def check_dim(setting: str, dim: object, full: SubModel) -> int:
    """The dim, if the model has it; else InputError naming the setting."""
    return _within(setting, "dims", dim, 1, full.dim, full)


def check_distinct(setting: str, values: Sequence[object]) -> None:
    """Raise InputError where the list is empty or names something twice."""
    if not values:
        raise InputError(f"{setting} is empty: name at least one, or leave {setting} out for the default")
    twice = [value for index, value in enumerate(values) if value in values[:index]]
    if twice:
        raise InputError(f"{setting} must be distinct, got {twice[0]} twice: remove one")


def check_count(setting: str, count: object, most: int | None = None) -> int:
    """How many to draw per step: -1 (all) or 1 and more; with `most`, 1..most and no -1."""
    if isinstance(count, int) and not isinstance(count, bool):
        if most is None and (count == -1 or count >= 1):
            return count
        if most is not None and 1 <= count <= most:
            return count
    wanted = "-1 (all) or at least 1" if most is None else f"in 1..{most}"
    raise InputError(f"{setting} must be {wanted}, got {count!r}")


def check_weight(setting: str, weight: float) -> float:
    """A finite weight of 0 or more; else InputError naming the setting."""
    if not isinstance(weight, (int, float)) or not (math.isfinite(weight) and weight >= 0):
        raise InputError(f"{setting} must be a finite number of 0 or more, got {weight!r}")
    return float(weight)


def check_weights(setting: str, weights: Sequence[float] | None, count: int, of: str) -> tuple[float, ...]:
    """One weight for each of `count` entries of the setting `of`, all 1 when none are given."""
    if weights is None:
        return (1.0,) * count
    if len(weights) != count:
        raise InputError(f"{setting} must have one number for each of the {count} {of}, got {len(weights)}")
    checked = tuple(check_weight(setting, weight) for weight in weights)
    if not any(checked):
        raise InputError(f"{setting} are all 0, nothing would train: raise one")
    return checked


def weighted_dims(
    dims: Sequence[int] | None,
    weights: Sequence[float] | None,
    full: SubModel,
    weights_setting: str = "weights",
) -> tuple[tuple[int, float], ...]:
    """(dim, weight) ascending by dim; weights[i] belongs to dims[i] as they were given."""
    chosen = halved_dims(full.dim) if dims is None else tuple(check_dim("dims", dim, full) for dim in dims)
    check_distinct("dims", chosen)
    return tuple(
        sorted(zip(chosen, check_weights(weights_setting, weights, len(chosen), "dims"), strict=True))
    )


def warn_of_untrained(dims: Sequence[tuple[int, float]], width: int) -> None:
    """Say in the log that dims, which have weights here, stop short of the width."""
    *_, (last, _) = dims
    if last < width:
        listed = [dim for dim, _ in dims]
        log.warning("dims %s leave out %d: coordinates past %d train nothing", listed, width, last)


def halved_dims(width: int) -> tuple[int, ...]:
    """The default dims, ascending: the width and its halves down to 32 (768: 48, 96, 192, 384, 768).

    Models narrower than 256 stop at an eighth of their width instead.
    """
    dims = [width]
    while dims[-1] // 2 >= _smallest_dim(width):
        dims.append(dims[-1] // 2)
    return tuple(reversed(dims))


def even_pairs(full: SubModel) -> tuple[SubModel, ...]:
    """The default pairs: up to six layers spread evenly, dims growing geometrically from 32 to the width.

    Dims are rounded to powers of two, the last is the width. 12 layers x 768 give the six sizes of Starbucks:
    (2, 32) (4, 64) (6, 128) (8, 256) (10, 512) (12, 768).
    """
    count = min(MOST_PAIRS, full.layer)
    growth = full.dim / _smallest_dim(full.dim)
    pairs = []
    for number in range(1, count):
        dim = full.dim * growth ** (-(count - number) / (count - 1))
        pairs.append(SubModel(round(number * full.layer / count), min(2 ** round(math.log2(dim)), full.dim)))
    return (*pairs, full)


def _smallest_dim(width: int) -> int:
    return min(SMALLEST_DIM, max(1, width // 8))


def _within(setting: str, noun: str, value: object, lowest: int, highest: int, full: SubModel) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest:
        return value
    raise InputError(
        f"{setting} must name whole {noun} in {lowest}..{highest}, got {value!r} "
        f"(the model has num_layers={full.layer}, width={full.dim})"
    )
