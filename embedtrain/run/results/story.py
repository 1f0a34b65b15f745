"""What the card of a model says of its run: verdict, scores of all cells, data and recipe, from its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from embedtrain.files.measured.verdict import read_verdict
from embedtrain.files.run_record import read_record
from embedtrain.files.scores import read_scores
from embedtrain.model.folder.cards.card import PICTURE, Story
from embedtrain.reporting.cells import Cells, dtypes_of, name_of_metric, paired
from embedtrain.types import Cell, InputError, Score

PRIVATE = ("name", "output_root", "overwrite", "logger", "exports", "evaluation", "optimized_metric")
PLACES = ("path", "train", "validation", "source", "cache", "corpus")  # settings that name a file or folder


def story_of(folder: Path, index: str = "") -> Story:
    """The story of the run in a folder; empty but for `index` where there is none.

    Args:
        folder: of a run, or of anything else.
        index: what `index_of` made of the scores of the model.
    """
    record = read_record(folder / "config.yaml")
    if record is None:
        return Story(index)
    verdict, scores = read_verdict(folder), read_scores(folder / "scores.jsonl")
    last = max((score.step for score in scores), default=0)
    grid, title = grid_of(scores, last)
    picture = folder / PICTURE
    return Story(
        index,
        () if verdict is None else [line for line in verdict.lines if not line.startswith(" ")],
        grid,
        title,
        picture if grid and picture.is_file() else None,
        data_of(record.part("data")),
        recipe_of(record.given or {}),
    )


def grid_of(scores: Sequence[Score], last: int) -> tuple[str, str]:
    """A Markdown table of layers x dims, before → after x 100, a block a dtype; and what the numbers are.

    Both are empty without scores, or where cells were measured on different tasks.
    """
    after = [score for score in scores if score.step == last]
    before = [score for score in scores if score.step == 0 and last]
    try:
        old, new = paired(before, after)
    except InputError:
        return "", ""
    if not new:
        return "", ""
    dims = sorted({cell.dim for cell in new})
    several = len(dtypes_of(new)) > 1
    rows = [["layer", *(f"dim {dim}" for dim in dims)], ["---:"] * (len(dims) + 1)]
    for dtype in dtypes_of(new):
        for layer in sorted({cell.layer for cell in new if cell.dtype == dtype}):
            name = f"{layer} {dtype}" if several else str(layer)
            rows.append([name, *(_cell(old, new, Cell(layer, dim, dtype)) for dim in dims)])
    title = name_of_metric(after) + (", before → after training" if old else "")
    return "\n".join(f"| {' | '.join(row)} |" for row in rows), title


def _cell(old: Cells, new: Cells, cell: Cell) -> str:
    if cell not in new:
        return ""
    return f"{old[cell]:.1f} → {new[cell]:.1f}" if cell in old else f"{new[cell]:.1f}"


def data_of(data: Mapping[str, Any]) -> list[str]:
    """Each training source by its last names; a folder of this machine is nobody else's."""
    entries = data.get("train")
    listed = entries if isinstance(entries, list) else [entries]
    sources = [entry.get("source") if isinstance(entry, Mapping) else entry for entry in listed]
    return [_place(str(source)) for source in sources if source]


def recipe_of(given: Mapping[str, Any]) -> str:
    """The settings that were given, as YAML, without those of this machine."""
    public = {key: _public(value) for key, value in given.items() if key not in PRIVATE}
    shown = {key: value for key, value in public.items() if value not in ({}, None)}
    return yaml.safe_dump(shown, sort_keys=False, width=110) if shown else ""  # escapes what is not ASCII


def _public(value: Any, key: str = "") -> Any:  # noqa: ANN401 - whatever a setting is
    if isinstance(value, Mapping):
        return {name: _public(part, str(name)) for name, part in value.items()}
    if isinstance(value, list):
        return [_public(part, key) for part in value]
    return (
        _place(value) if isinstance(value, str) and (key in PLACES or value.startswith(("/", "~"))) else value
    )


def _place(text: str) -> str:
    """A hub name as it is; of a path its last name."""
    path = Path(text)
    return path.name if path.is_absolute() or text.startswith(("~", ".")) or len(path.parts) > 2 else text
