"""Which classes a setting may name: those of its group, those that parts are made of, and installed ones.

A recipe may come from anybody, so `_target_` is no way to run other code: names are compared before anything
is imported. A package of one's own takes part by an entry point, which only its installation gives it:

    [project.entry-points."embedtrain.components"]
    mine = "my_package.losses"
"""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from embedtrain.settings.names import nearest
from embedtrain.settings.places import config_dir
from embedtrain.settings.signatures import is_class
from embedtrain.types import InputError

ENTRY_POINTS = "embedtrain.components"
# Where the parts inside a part are defined: terms of losses, schedules, plans of plans, rules.
PARTS = ("embedtrain.objective.", "embedtrain.rules.", "embedtrain.mining.selection.")
LOGGERS = frozenset(
    f"pytorch_lightning.loggers.{name}Logger" for name in ("CSV", "Comet", "MLFlow", "TensorBoard", "Wandb")
)
_CHOICE = re.compile(r"^_target_: *([\w.]+) *$", re.MULTILINE)


def check_target(target: str, where: str) -> None:
    """Refuse a class that is not on the list of its place.

    Args:
        target: dotted name.
        where: the config key: `loss` of a group, `loss.terms[0].loss` of a part inside one, "" of any part.

    Raises:
        InputError: naming the place and what it takes.
    """
    group = re.split(r"[.\[]", where)[0]
    inside = where != group or not group
    known = parts_of(group) if where == group else frozenset()
    rooms = (*map(_room, known), *(PARTS if inside else ()))
    if target in known or (target.startswith(rooms) and is_class(target)) or is_installed(target):
        return
    listed = ", ".join(sorted(known)) or f"classes of {', '.join(room[:-1] for room in PARTS)}"
    raise InputError(
        f"{where}._target_ '{target}' is not allowed{nearest(target, sorted(known))} Here can be: {listed}; "
        f"and classes of installed packages with an entry point in {ENTRY_POINTS}"
    )


def is_installed(name: str) -> bool:
    """Whether a module, or the module of a class, is one that an installed package offers."""
    offered = [entry.value.partition(":")[0] for entry in _offers()]
    return any(name == module or name.startswith(f"{module}.") for module in offered)


@cache
def parts_of(group: str) -> frozenset[str]:
    """The classes and functions that the options of a group choose; all of them of no group."""
    files = config_dir("conf").glob(f"{group or '*'}/*.yaml")
    found = {name for file in files for name in _CHOICE.findall(file.read_text("utf-8"))}
    return frozenset(found) | (LOGGERS if group in ("logger", "") else frozenset())


def _room(target: str) -> str:
    """Where the like of an option's class is defined: a module, or a package whose names it has."""
    return f"{target.rpartition('.')[0]}."


@cache
def _offers() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=ENTRY_POINTS))
