"""embedtrain-mine: rows in, the same rows with hard negatives and a teacher's scores out."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from embedtrain.cli.start import start
from embedtrain.settings.commands import MineSettings
from embedtrain.types import InputError

if TYPE_CHECKING:
    from embedtrain.mining.reading import Reading


def main() -> None:
    """Entry point of `embedtrain-mine`."""
    start("mine")


def run(settings: MineSettings) -> None:
    """Encode with a teacher, search, choose, write; the ranks of torchrun share the texts."""
    with _ranks():
        _mine(settings)


def _mine(settings: MineSettings) -> None:
    from embedtrain import ranks
    from embedtrain.run.mine import MiningRun, check_settings

    shard, shards = shard_of(settings.shard)
    check_settings(settings)
    mining = MiningRun(settings, _read(settings))
    world = ranks.world_size()
    mining.encode(shard=shard * world + ranks.rank(), shards=shards * world)
    ranks.wait()
    if ranks.rank():
        return
    if shards > 1:
        mining.say(f"shard {settings.shard} is encoded. Once all are, run again without shard= to mine.")
        return
    lines = mining.write(Path(settings.out))
    print("\n".join(lines))


def shard_of(text: str | None) -> tuple[int, int]:
    """(0-based shard, number of shards) of "2/4". Raises InputError for anything else."""
    if text is None:
        return 0, 1
    first, slash, second = text.partition("/")
    if not (slash and first.isdigit() and second.isdigit() and 1 <= int(first) <= int(second)):
        raise InputError(f"shard={text}: say which of how many, e.g. shard=1/4 to shard=4/4")
    return int(first) - 1, int(second)


def _read(settings: MineSettings) -> Reading:
    """Rows and corpus that the config names, bad rows left out as it says."""
    from embedtrain import ranks
    from embedtrain.data.read.bad_rows import BadRows
    from embedtrain.mining.output import bad_rows_folder
    from embedtrain.mining.reading import read_retrieval, read_source

    def bad() -> BadRows:
        return BadRows(settings.on_bad_row, bad_rows_folder(Path(settings.out)))

    if settings.overwrite and settings.shard is None and not ranks.rank():
        bad().forget()
    ranks.wait()
    source, root, corpus = settings.source, settings.data_root, settings.corpus
    if root is not None and source.startswith("retrieval/"):
        reading = read_retrieval(Path(root) / source, bad, corpus=corpus)
    else:
        reading = read_source(source, bad, corpus=corpus, split=settings.split, columns=settings.columns)
    if not ranks.rank():
        bad().summary()
    return reading


def _ranks() -> AbstractContextManager[None]:
    """A group of what torchrun started; nothing for one process."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return nullcontext()
    from embedtrain.ranks import process_group

    return process_group()


if __name__ == "__main__":
    main()
