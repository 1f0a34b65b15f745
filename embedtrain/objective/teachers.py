"""Which sub-models of a step teach which.

"largest" is the deepest and widest of the step, as in most papers; "next" the smallest that is larger, so
that a small one learns from what it can reach; "all_larger" every larger one, each with an equal share
(Matryoshka Re-Ranker, 2501.16302; MIPIC, 2604.24374).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from embedtrain.objective.settings import one_of
from embedtrain.types import SubModel

Teachers = Literal["largest", "next", "all_larger"]


def checked(teachers: Teachers) -> Teachers:
    """Itself. Raises InputError for another word."""
    one_of("teachers", teachers, get_args(Teachers))
    return teachers


def teachers_of(sub: SubModel, subs: Sequence[SubModel], which: Teachers) -> tuple[SubModel, ...]:
    """The teachers of a sub-model among those of a step; none of the largest.

    Larger is what has as many layers and dims, and more of one. Of several, the next is the one with the
    fewest layers, then dims. Where none is larger in both, the deepest and widest teaches.
    """
    largest = max(subs)
    if sub == largest:
        return ()
    larger = sorted({one for one in subs if one != sub and one.layer >= sub.layer and one.dim >= sub.dim})
    if which == "largest" or not larger:
        return (largest,)
    return (larger[0],) if which == "next" else tuple(larger)


def deeper(layer: int, layers: Sequence[int], which: Teachers) -> tuple[int, ...]:
    """The layers of a step that teach a layer; none of the deepest."""
    found = sorted(one for one in set(layers) if one > layer)
    if not found:
        return ()
    return {"largest": (found[-1],), "next": (found[0],), "all_larger": tuple(found)}[which]
