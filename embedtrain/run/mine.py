"""The stages of `embedtrain-mine`, in order, and what is said on the way."""

from __future__ import annotations

import json
import logging
import resource
import time
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from embedtrain import ranks
from embedtrain.console import Progress
from embedtrain.data.read.bad_rows import BadRows
from embedtrain.data.writing import bad_rows_folder, check_output, statistics_path, write_rows
from embedtrain.devices import device_of
from embedtrain.files.atomic import write_bytes
from embedtrain.files.locks import taken
from embedtrain.mining.backends import check_index
from embedtrain.mining.output import STATISTICS, mined_rows
from embedtrain.mining.pipeline import check_size, fill, mine_all, stores_of
from embedtrain.mining.problem import problems_of
from embedtrain.mining.reading import Reading, read_retrieval, read_source
from embedtrain.mining.rescore import CrossEncoderScores, PairScores
from embedtrain.mining.selection import Selection
from embedtrain.mining.statistics import readable
from embedtrain.mining.teacher import Teacher
from embedtrain.run.models import model_folder
from embedtrain.run.results.next_line import training_line
from embedtrain.settings.commands import MineSettings
from embedtrain.settings.compose import effective
from embedtrain.types import InputError

log = logging.getLogger(__name__)
MEGABYTE = 1024  # of `ru_maxrss`, which counts in KiB on Linux


class Mined(NamedTuple):
    """What a mining wrote."""

    rows: Path | None  # training rows with negatives; None of a shard that was only encoded, or another rank
    statistics: Path | None
    lines: list[str]  # what to show of it


def mine(settings: MineSettings) -> Mined:
    """Encode with a teacher, search, choose, write. All ranks of a group call; the first one writes.

    Raises:
        InputError: for what the user can mend.
    """
    shard, shards = shard_of(settings.shard)
    writes = shards == 1 and not ranks.rank()
    check_settings(settings)
    with taken(Path(settings.out)) if writes else nullcontext():
        check_settings(settings)
        return _mined(settings, shard, shards)


def _mined(settings: MineSettings, shard: int, shards: int) -> Mined:
    run, world = MiningRun(settings, _read(settings)), ranks.world_size()
    run.encode(shard=shard * world + ranks.rank(), shards=shards * world)
    ranks.wait()
    if ranks.rank():
        return Mined(None, None, [])
    if shards > 1:
        again = "Once all are, run again without shard= to mine."
        return Mined(None, None, [f"shard {settings.shard} is encoded. {again}"])
    out = Path(settings.out)
    lines = run.write(out)
    return Mined(out, statistics_path(out), lines)


def shard_of(text: str | None) -> tuple[int, int]:
    """(0-based shard, number of shards) of "2/4". Raises InputError for anything else."""
    if text is None:
        return 0, 1
    first, slash, second = text.partition("/")
    if not (slash and first.isdigit() and second.isdigit() and 1 <= int(first) <= int(second)):
        raise InputError(f"shard={text}: say which of how many, e.g. shard=1/4 to shard=4/4")
    return int(first) - 1, int(second)


def _read(settings: MineSettings) -> Reading:
    """Rows and corpus that the settings name, bad rows left out as they say."""

    def bad() -> BadRows:
        return BadRows(settings.on_bad_row, bad_rows_folder(Path(settings.out)))

    if settings.overwrite and settings.shard is None and not ranks.rank():
        bad().forget()
    ranks.wait()
    source, root, corpus = settings.source, settings.data_root, settings.corpus
    if root is not None and source.startswith("retrieval/"):
        reading = read_retrieval(Path(root) / source, bad, corpus=corpus, split=settings.split)
    else:
        reading = read_source(source, bad, corpus=corpus, split=settings.split, columns=settings.columns)
    if not ranks.rank():
        bad().summary()
    return reading


class MiningRun:
    """Everything `embedtrain-mine` does, built from its settings.

    Args:
        settings: of the command, checked by `check_settings`.
        reading: rows, and a corpus or None.

    Raises:
        InputError: for whatever the user can mend; nothing has been written then.
    """

    def __init__(self, settings: MineSettings, reading: Reading) -> None:
        self.settings, self.reading = settings, reading
        self.out = Path(settings.out)
        self.keep = settings.own_negatives == "keep"
        self.selection: Selection = settings.selection.build()
        self.problems = problems_of(
            enumerate(reading.examples),
            corpus=reading.corpus,
            keep_negatives=self.keep,
            instructions=settings.use_instructions,
        )
        check_size(self.problems, self.selection)
        located = settings.teacher.mapped(path=lambda path: model_folder(str(path)))  # a finished run, too
        self.teacher: Teacher = located.build(device=settings.device)
        self.store = self.out.parent / "vectors" if settings.store is None else Path(settings.store)
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
        begun, path = time.monotonic(), self.settings.cross_encoder
        device = str(self.teacher.device)
        model = None if path is None else CrossEncoderScores(path, device=device)
        with Progress(steady=True) as progress:
            mined, statistics = mine_all(
                self.problems,
                self.stores,
                self.selection,
                progress,
                index=self.settings.index,
                device=device,
                pairs=None if model is None else PairScores(self.store, model),
                seed=self.settings.seed,
            )
        found = list(zip(self.problems, mined, strict=True))
        rows = list(mined_rows(self.reading.examples, found, keep_negatives=self.keep))
        self.seconds["mining"] = time.monotonic() - begun
        summary = {
            "out": str(out),
            "read": {name: part._asdict() for name, part in self.reading.parts.items()},
            "rows_in": len(self.reading.examples),
            "rows_out": len(rows),
            "teacher": {"source": self.teacher.source, "identity": self.teacher.identity},
            "cross_encoder": None if model is None else {"source": path, "identity": model.identity},
            "documents": [len(problem.documents) for problem in self.problems],
            "texts_encoded_now": self.encoded,
            **statistics.summary(),
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "cpu_seconds": round(time.process_time(), 3),
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // MEGABYTE,
            "settings": effective(self.settings),
        }
        beside = statistics_path(out)
        # First: they say that the rows are ours, should this process be killed between the two.
        write_bytes(beside, (json.dumps(summary, indent=1, ensure_ascii=False) + "\n").encode())
        write_rows(out, rows)
        lines = [*readable(summary), f"rows: {out}   statistics: {beside}"]
        left_out = self.reading.left_out
        if left_out:
            lines.append(f"bad rows: {left_out}, in {bad_rows_folder(out)}")
        return [*lines, training_line(out)]

    def say(self, text: str) -> None:
        """A line, from one rank."""
        if not ranks.rank():
            log.info(text)


def check_settings(settings: MineSettings) -> None:
    """Raise InputError for what can be refused before anything is read."""
    sources = settings.source, settings.corpus
    check_output(Path(settings.out), sources, STATISTICS, overwrite=settings.overwrite)
    check_index(settings.index)
    device_of(settings.device)
