"""embedtrain-mine: rows in, the same rows with hard negatives and a teacher's scores out."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from embedtrain.cli.start import start

if TYPE_CHECKING:
    from embedtrain.settings.commands import MineSettings


def main() -> None:
    """Entry point of `embedtrain-mine`."""
    start("mine")


def run(settings: MineSettings) -> None:
    """Encode with a teacher, search, choose, write; the ranks of torchrun share the texts."""
    with _ranks():
        _mine(settings)


def _mine(settings: MineSettings) -> None:
    from embedtrain.escaping import terminal
    from embedtrain.run.mine import mine

    print(terminal("\n".join(mine(settings).lines)))


def _ranks() -> AbstractContextManager[None]:
    """A group of what torchrun started; nothing for one process."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return nullcontext()
    from embedtrain.ranks import process_group

    return process_group()


if __name__ == "__main__":
    main()
