"""embedtrain-merge: one model of several runs, measured beside them."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from embedtrain.cli.start import start

if TYPE_CHECKING:
    from embedtrain.settings.tools import MergeSettings


def main() -> None:
    """Entry point of `embedtrain-merge`."""
    start("merge")


def run(settings: MergeSettings) -> None:
    """Merge runs, write a run folder, show all models in one table."""
    from rich.console import Console

    from embedtrain.escaping import terminal
    from embedtrain.reporting.merged import merged_table
    from embedtrain.run.merging.merge import merge

    folder, merged = merge(settings)
    for line in merged.chosen:
        print(terminal(line))
    if merged.score is not None:
        Console().print(merged_table(merged))
    print(terminal(f"merged: {folder}   made of: {folder / 'merge.json'}"))
    print(terminal(f"next: look at every cut   embedtrain-report {shlex.quote(str(folder))}"))


if __name__ == "__main__":
    main()
