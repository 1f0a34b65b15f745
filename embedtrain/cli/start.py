"""Where commands start: Ctrl-C is answered from here on, help at once, anything else by the command."""

from __future__ import annotations

import sys

from embedtrain.cli.process.interruption import answered

HELP = {"--help", "-h", "help"}


def main() -> None:
    """Entry point of `embedtrain`: the list of commands, or one of them."""
    words = sys.argv[1:]
    with answered("nothing was done yet"):
        from embedtrain.cli.commands import COMMANDS, overview
        from embedtrain.settings.names import nearest

        if not words or words[0] in HELP:
            print(overview())
            return
        if words[0] not in COMMANDS:
            listed = f"There are: {', '.join(COMMANDS)}"
            print(
                f"error: no command '{words[0]}'{nearest(words[0], list(COMMANDS))} {listed}", file=sys.stderr
            )
            sys.exit(1)
    sys.argv[:] = [f"embedtrain-{words[0]}", *words[1:]]
    from importlib import import_module

    import_module(f"embedtrain.cli.{words[0]}").main()


def start(name: str) -> None:
    """Answer --help, or run the command that the command line describes."""
    with answered("nothing was done yet"):
        from embedtrain.cli.commands import COMMANDS, help_of

        if HELP.intersection(sys.argv[1:]):
            print(help_of(name))
            return
        command = COMMANDS[name]
    with answered(command.again):
        from embedtrain.cli.launch import launch  # with Hydra, which help need not wait for

        launch(name, command)
