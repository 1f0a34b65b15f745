"""embedtrain-pairs: documents in, training rows out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedtrain.cli.start import start

if TYPE_CHECKING:
    from embedtrain.settings.tools import PairsSettings


def main() -> None:
    """Entry point of `embedtrain-pairs`."""
    start("pairs")


def run(settings: PairsSettings) -> None:
    """Make pairs of documents, write rows and statistics, show some of them."""
    from embedtrain.escaping import terminal
    from embedtrain.run.pairs import make_pairs

    print(terminal("\n".join(make_pairs(settings).lines)))


if __name__ == "__main__":
    main()
