"""embedtrain: one text-embedding model, trained once, cut to any (layer, dim) later.

    import embedtrain

    run = embedtrain.train(name="mine", data={"train": "rows.jsonl"})
    run.model.encode(["a text"], layer=3, dim=128)

The functions are those of the commands, with the same settings: see docs/python.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedtrain.api import (
        Mined,
        compare,
        evaluate,
        export,
        merge,
        mine,
        pairs,
        report,
        rotate,
        train,
    )
    from embedtrain.api.objects import Evaluation, Model, Run, load
    from embedtrain.types import Cell, InputError, Score, SubModel

__version__ = "0.1.0"
_TYPES = ("Cell", "InputError", "Score", "SubModel")
__all__ = [
    "Cell",
    "Evaluation",
    "InputError",
    "Mined",
    "Model",
    "Run",
    "Score",
    "SubModel",
    "compare",
    "evaluate",
    "export",
    "load",
    "merge",
    "mine",
    "pairs",
    "report",
    "rotate",
    "train",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's attributes are anything
    """Import what is asked for, and torch with it, when it is asked for."""
    from importlib import import_module

    if name in __all__:
        return getattr(import_module("embedtrain.types" if name in _TYPES else "embedtrain.api"), name)
    raise AttributeError(f"module 'embedtrain' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
