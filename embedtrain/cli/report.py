"""embedtrain-report: runs as one interactive page, written to a file or served while they train."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from embedtrain.cli.start import start

if TYPE_CHECKING:
    from embedtrain.settings.commands import ReportSettings


def main() -> None:
    """Entry point of `embedtrain-report`."""
    sys.argv[1:] = as_settings(sys.argv[1:])
    start("report")


def as_settings(words: Sequence[str]) -> list[str]:
    """The words with folders as `runs=[...]` and `--serve` as `serve=true`.

    A word with "=" is a folder where there is one of that name, as sweeps write them.
    """
    folders = [word for word in words if _is_folder(word)]
    rest = ["serve=true" if word == "--serve" else word for word in words if word not in folders]
    if not folders:
        return rest
    from embedtrain.cli.line.quoting import in_quotes

    listed = ",".join(map(in_quotes, folders))
    return [f"runs=[{listed}]", *rest]


def run(settings: ReportSettings) -> None:
    """Write the page, or serve it until Ctrl-C."""
    from embedtrain.escaping import terminal
    from embedtrain.run.report.page import serving, write_report

    if settings.serve:
        with serving(settings) as server:
            print(terminal(f"report: {server.address}   Ctrl-C ends it"), flush=True)
            server.serve_forever()
        return
    written = write_report(settings)
    for line in written.notes:
        print(terminal(line))
    print(terminal(f"report: {written.page}"))


def _is_folder(word: str) -> bool:
    if word.startswith("-") or word == "help":
        return False
    return "=" not in word or (os.path.isdir(word) and not word.startswith(("runs=", "output=")))


if __name__ == "__main__":
    main()
