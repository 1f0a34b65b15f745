"""The stages of `embedtrain-mine`, in order, and what is said on the way."""

from __future__ import annotations

import json
import logging
import resource
import time
from pathlib import Path
from typing import Any

import torch

from embedtrain import ranks
from embedtrain.console import Progress
from embedtrain.files.atomic import write_bytes
from embedtrain.mining.backends import check_index
from embedtrain.mining.output import bad_rows_folder, check_output, mined_rows, statistics_path, write_rows
from embedtrain.mining.pipeline import check_size, fill, mine_all, stores_of
from embedtrain.mining.problem import problems_of
from embedtrain.mining.reading import Reading
from embedtrain.mining.rescore import CrossEncoderScores, PairScores
from embedtrain.mining.selection import Selection
from embedtrain.mining.statistics import readable
from embedtrain.mining.teacher import Teacher
from embedtrain.run.models import model_folder
from embedtrain.settings.build import build
from embedtrain.types import InputError

log = logging.getLogger(__name__)
MEGABYTE = 1024  # of `ru_maxrss`, which counts in KiB on Linux


class MiningRun:
    """Everything `embedtrain-mine` does, built from a plain config.

    Args:
        config: `MineConfig` as plain containers, checked by `check_config`.
        reading: rows, and a corpus or None.

    Raises:
        InputError: for whatever the user can mend; nothing has been written then.
    """

    def __init__(self, config: dict[str, Any], reading: Reading) -> None:
        self.config, self.reading = config, reading
        self.out = Path(config["out"])
        self.keep = config["own_negatives"] == "keep"
        self.selection: Selection = build(config["selection"], "selection")
        self.problems = problems_of(
            enumerate(reading.examples),
            corpus=reading.corpus,
            keep_negatives=self.keep,
            instructions=config["use_instructions"],
        )
        check_size(self.problems, self.selection)
        self.teacher = _teacher(config["teacher"])
        store = config["store"]
        self.store = self.out.parent / "vectors" if store is None else Path(store)
        self.stores = stores_of(self.problems, self.teacher, self.store)
        self.seconds: dict[str, float] = {}
        self.encoded = 0

    def encode(self, *, shard: int, shards: int) -> None:
        """Encode this shard of the texts, those that are not on the disk."""
        total = sum(len(store.texts) for pair in self.stores for store in pair)
        self.say(f"encoding {total} texts into {self.store}")
        begun = time.monotonic()
        with Progress(steady=True) as progress:
            self.encoded = fill(self.stores, progress, shard=shard, shards=shards)
        self.seconds["encoding"] = time.monotonic() - begun

    def write(self, out: Path) -> list[str]:
        """Mine, write rows and statistics; what to show of them."""
        begun, path = time.monotonic(), self.config["cross_encoder"]
        device = str(self.teacher.device)
        model = None if path is None else CrossEncoderScores(path, device=device)
        with Progress(steady=True) as progress:
            mined, statistics = mine_all(
                self.problems,
                self.stores,
                self.selection,
                progress,
                index=self.config["index"],
                device=device,
                pairs=None if model is None else PairScores(self.store, model),
                seed=self.config["seed"],
            )
        found = list(zip(self.problems, mined, strict=True))
        rows = write_rows(out, mined_rows(self.reading.examples, found, keep_negatives=self.keep))
        self.seconds["mining"] = time.monotonic() - begun
        summary = {
            "out": str(out),
            "read": {name: part._asdict() for name, part in self.reading.parts.items()},
            "rows_in": len(self.reading.examples),
            "rows_out": rows,
            "teacher": {"source": self.teacher.source, "identity": self.teacher.identity},
            "cross_encoder": None if model is None else {"source": path, "identity": model.identity},
            "documents": [len(problem.documents) for problem in self.problems],
            "texts_encoded_now": self.encoded,
            **statistics.summary(),
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "cpu_seconds": round(time.process_time(), 3),
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // MEGABYTE,
            "settings": self.config,
        }
        beside = statistics_path(out)
        write_bytes(beside, (json.dumps(summary, indent=1, ensure_ascii=False) + "\n").encode())
        lines = [*readable(summary), f"rows: {out}   statistics: {beside}"]
        left_out = self.reading.left_out
        return [*lines, *([f"bad rows: {left_out}, in {bad_rows_folder(out)}"] if left_out else [])]

    def say(self, text: str) -> None:
        """A line, from one rank."""
        if not ranks.rank():
            log.info(text)


def check_config(config: dict[str, Any]) -> None:
    """Raise InputError for what can be refused before anything is read."""
    out = Path(config["out"])
    check_output(out)
    if config["own_negatives"] not in ("drop", "keep"):
        raise InputError(f"own_negatives must be drop or keep, got {config['own_negatives']!r}")
    if out.exists() and not config["overwrite"]:
        raise InputError(f"{out} exists already: choose another out, or pass overwrite=true")
    check_index(config["index"])


def _teacher(node: dict[str, Any]) -> Teacher:
    """The teacher, of each rank on its own GPU where there are GPUs."""
    settings = {**node}
    if "path" in settings:
        settings["path"] = model_folder(str(settings["path"]))
    if settings.get("device", "auto") == "auto" and torch.cuda.is_available():
        settings["device"] = f"cuda:{ranks.local_rank()}"
    teacher: Teacher = build(settings, "teacher")
    return teacher
