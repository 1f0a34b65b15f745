"""embedtrain-mine: rows in, the same rows with hard negatives and a teacher's scores out."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from embedtrain.cli.launch import launch
from embedtrain.types import InputError

if TYPE_CHECKING:
    from embedtrain.data.sources import Example


def main() -> None:
    """Entry point of `embedtrain-mine`."""
    launch("mine", mine)


def mine(config: dict[str, Any]) -> None:
    """Encode with a teacher, search, choose, write; the ranks of torchrun share the texts."""
    with _ranks():
        _mine(config)


def _mine(config: dict[str, Any]) -> None:
    from pathlib import Path

    from embedtrain import ranks
    from embedtrain.cli.mining_stages import MiningRun

    shard, shards = shard_of(config["shard"])
    run = MiningRun(config, _rows(config))
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


def _rows(config: dict[str, Any]) -> tuple[list[Example], list[str] | None]:
    """(rows, corpus) that the config names; None for the rows' own documents."""
    from pathlib import Path

    from embedtrain.data.sources import read_examples
    from embedtrain.mining.problem import read_corpus, read_retrieval

    source, root = config["source"], config["data_root"]
    if root is not None and source.startswith("retrieval/"):
        examples, corpus = read_retrieval(Path(root) / source)
    else:
        examples, corpus = read_examples(source, split=config["split"], columns=config["columns"]), None
    return examples, corpus if config["corpus"] is None else read_corpus(config["corpus"])


def _ranks() -> AbstractContextManager[None]:
    """A group of what torchrun started; nothing for one process."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return nullcontext()
    from embedtrain.ranks import process_group

    return process_group()


if __name__ == "__main__":
    main()
