"""`plan=true`: what an evaluation costs; and where its vectors are kept, from the keys of the command."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from embedtrain.console import duration
from embedtrain.escaping import add_row
from embedtrain.evaluation.catalogue.tasks import find_tasks
from embedtrain.evaluation.sweeping.cost import Cost, costs
from embedtrain.evaluation.vectors.storage import GIB, Keeping
from embedtrain.model.encoder import Encoder
from embedtrain.ranks import rank, world_size
from embedtrain.settings.commands import EvaluateSettings
from embedtrain.types import Cell, InputError

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask


def keeping_of(settings: EvaluateSettings, folder: Path) -> Keeping:
    """Where vectors are kept, by `store`, `store_gb`, `memory_gb` and `store_dtype`.

    Raises:
        InputError: a store that is no folder or cannot be one.
    """
    store = settings.store
    place = None if store == "none" else Path(store).expanduser() if store else folder / "vectors"
    if place is not None:
        check_folder("store", place)
    return Keeping(place, settings.store_gb, settings.memory_gb, settings.store_dtype)


def check_folder(key: str, place: Path) -> None:
    """Nothing, if this is a folder, or can become one.

    Raises:
        InputError: if it is or lies below a file, or nothing can be written there.
    """
    there = next(path for path in (place, *place.absolute().parents) if path.exists() or path.is_symlink())
    if not there.is_dir():
        below = "" if there == place else f" ({there} is one)"
        raise InputError(f"{key}={place}: this must be a folder, not a file{below}. Say another one")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{key}={place}: nothing can be written in {there}. Say another folder")


def show_plan(
    encoder: Encoder,
    settings: EvaluateSettings,
    cells: Sequence[Cell],
    keeping: Keeping,
    tasks: Sequence[AbsTask] | None,
) -> None:
    """Print what each task costs. Encodes a few texts to know the speed, and keeps nothing."""
    found = tasks or find_tasks(settings.tasks, settings.data_root, settings.languages)
    if rank() == 0:
        Console().print(plan_table(costs(encoder, found, cells, keeping, world_size())))


def plan_table(found: Sequence[Cost]) -> Table:
    """A line a task, the sums below; ~ marks what mteb's statistics say where there are no data."""
    table = Table("task", "texts", "tokens", "vectors", "TFLOP", "encoding", "vectors will be in")
    for item in found:
        about = "" if item.exact else "~"
        add_row(
            table,
            item.task,
            f"{about}{item.texts:,}",
            f"{about}{item.tokens:,}",
            f"{item.vector_bytes / GIB:.3g} GB",
            f"{item.flops / 1e12:.3g}",
            duration(item.seconds),
            item.route,
        )
    table.add_section()
    table.add_row(
        "all",
        f"{sum(item.texts for item in found):,}",
        f"{sum(item.tokens for item in found):,}",
        f"{sum(item.vector_bytes for item in found) / GIB:.3g} GB",
        f"{sum(item.flops for item in found) / 1e12:.3g}",
        duration(sum(item.seconds for item in found)),
        "",
    )
    return table
