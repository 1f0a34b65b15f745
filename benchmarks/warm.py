"""Commands in processes that start in milliseconds: forked from one that has imported everything.

They are processes like any other, to be sent signals, SIGKILL included. What a command costs without
this is its imports, 5 to 8 s.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

IMPORTED = ("embedtrain.cli.logs", "embedtrain.cli.stages", "embedtrain.cli.stopping", "embedtrain.cli.train")


def start(
    words: Sequence[str], folder: Path, log: Path, environment: Mapping[str, str] | None = None
) -> ForkServerProcess:
    """`embedtrain-train WORDS` in `folder`, printing to `log`; its exit status is that of the process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED))
    process = context.Process(target=_train, args=(list(words), folder, log, dict(environment or {})))
    process.start()
    return process


def _train(words: list[str], folder: Path, log: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    os.chdir(folder)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stderr = os.fdopen(2, "w", buffering=1)  # the one inherited may be anything
    sys.argv = ["embedtrain-train", *words]
    from embedtrain.cli import train

    train.main()
