"""embedtrain-mine: rows in, the same rows with hard negatives and a teacher's scores out."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedtrain.cli.launch import launch
from embedtrain.types import InputError

if TYPE_CHECKING:
    from embedtrain.mining.reading import Reading


def main() -> None:
    """Entry point of `embedtrain-mine`."""
    launch("mine", mine)


def mine(config: dict[str, Any]) -> None:
    """Encode with a teacher, search, choose, write; the ranks of torchrun share the texts."""
    with _ranks():
        _mine(config)


def _mine(config: dict[str, Any]) -> None:
    from embedtrain import ranks
    from embedtrain.run.mine import MiningRun, check_config

    shard, shards = shard_of(config["shard"])
    check_config(config)
    run = MiningRun(config, _read(config))
    world = ranks.world_size()
    run.encode(shard=shard * world + ranks.rank(), shards=shards * world)
    ranks.wait()
    if ranks.rank():
        return
    if shards > 1:
        run.say(f"shard {config['shard']} is encoded. Once all are, run again without shard= to mine.")
        return
    lines = run.write(Path(config["out"]))
    print("\n".join(lines))


def shard_of(text: str | None) -> tuple[int, int]:
    """(0-based shard, number of shards) of "2/4". Raises InputError for anything else."""
    if text is None:
        return 0, 1
    first, slash, second = text.partition("/")
    if not (slash and first.isdigit() and second.isdigit() and 1 <= int(first) <= int(second)):
        raise InputError(f"shard={text}: say which of how many, e.g. shard=1/4 to shard=4/4")
    return int(first) - 1, int(second)


def _read(config: dict[str, Any]) -> Reading:
    """Rows and corpus that the config names, bad rows left out as it says."""
    from embedtrain import ranks
    from embedtrain.data.read.bad_rows import BadRows
    from embedtrain.mining.output import bad_rows_folder
    from embedtrain.mining.reading import read_retrieval, read_source

    def bad() -> BadRows:
        return BadRows(config["on_bad_row"], bad_rows_folder(Path(config["out"])))

    if config["overwrite"] and config["shard"] is None and not ranks.rank():
        bad().forget()
    ranks.wait()
    source, root, corpus = config["source"], config["data_root"], config["corpus"]
    if root is not None and source.startswith("retrieval/"):
        reading = read_retrieval(Path(root) / source, bad, corpus=corpus)
    else:
        reading = read_source(source, bad, corpus=corpus, split=config["split"], columns=config["columns"])
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
