"""Where commands start: help is answered at once, anything else goes to the command."""

from __future__ import annotations

import importlib
import sys

from embedtrain.cli.commands import COMMANDS, help_of, overview
from embedtrain.settings.names import nearest

HELP = {"--help", "-h", "help"}


def main() -> None:
    """Entry point of `embedtrain`: the list of commands, or one of them."""
    words = sys.argv[1:]
    if not words or words[0] in HELP:
        print(overview())
    elif words[0] in COMMANDS:
        sys.argv[:] = [f"embedtrain-{words[0]}", *words[1:]]
        importlib.import_module(f"embedtrain.cli.{words[0]}").main()
    else:
        listed = f"There are: {', '.join(COMMANDS)}"
        print(f"error: no command '{words[0]}'{nearest(words[0], list(COMMANDS))} {listed}", file=sys.stderr)
        sys.exit(1)


def start(name: str) -> None:
    """Answer --help, or run the command that the command line describes."""
    if HELP.intersection(sys.argv[1:]):
        print(help_of(name))
        return
    from embedtrain.cli.launch import launch  # with Hydra, which help need not wait for

    launch(name, COMMANDS[name])
