"""embedtrain-train: rows and a backbone in, a run folder with a trained model out."""

from __future__ import annotations

from embedtrain.cli.start import start
from embedtrain.settings.commands import TrainSettings


def main() -> None:
    """Entry point of `embedtrain-train`."""
    start("train")


def run(settings: TrainSettings) -> None:
    """One run: measure, train, measure again, save, cut.

    Raises:
        IncompleteError: once all is written, if a task could not be scored.
    """
    from embedtrain.cli.stopping import leave
    from embedtrain.console import is_main_process
    from embedtrain.run.train import train
    from embedtrain.training.callbacks.stopping import Stopped, StopRequest

    try:
        with StopRequest() as stop:
            train(settings, stop)
    except Stopped as stopped:
        leave(stopped, leads=is_main_process())


if __name__ == "__main__":
    main()
