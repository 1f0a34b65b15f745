"""The settings of `embedtrain-pairs`, as those of commands.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from embedtrain.settings.checks import Checked
from embedtrain.settings.component import Component


@dataclass(frozen=True, kw_only=True)
class PairsSettings(Checked):
    """Every key `embedtrain-pairs` reads."""

    source: Any  # files or folders of documents, one or a list
    out: str  # .jsonl, .jsonl.gz or .parquet
    maker: Component
    columns: dict[str, str] | None = None  # text, title, id, translation -> name in the rows
    on_bad_row: Literal["error", "skip", "quarantine"] = "error"  # as of `MineSettings`
    check_with: str | None = None  # a model; pairs whose text it does not find for the query are left out
    check_rank: int = 1  # among how many first texts it must find it
    device: str = "auto"  # as of `EvaluateSettings`: where models run
    store: str | None = None  # folder of vectors; None: vectors/ beside `out`
    seed: int = 0  # of draws
    overwrite: bool = False
