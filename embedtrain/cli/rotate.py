"""embedtrain-rotate: better prefixes of a finished model, whose weights stay as they are."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from embedtrain.cli.start import start

if TYPE_CHECKING:
    from embedtrain.settings.tools import RotateSettings


def main() -> None:
    """Entry point of `embedtrain-rotate`."""
    # `data=` would name a group of conf/.
    sys.argv[1:] = [re.sub(r"^data=", "source=", word) for word in sys.argv[1:]]
    start("rotate")


def run(settings: RotateSettings) -> None:
    """Rotate a model, write it, show what was tried."""
    from rich.console import Console

    from embedtrain.escaping import terminal
    from embedtrain.reporting.rotated import rotated_table
    from embedtrain.run.rotating.rotate import rotate

    out, rotated = rotate(settings)
    Console().print(rotated_table(rotated))
    print(terminal(f"rotated: {out}   what was tried: {out / 'rotation.json'}"))


if __name__ == "__main__":
    main()
