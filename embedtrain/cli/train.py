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
    from embedtrain.run.publish import evaluate_after, evaluate_before, publish
    from embedtrain.run.run import Run
    from embedtrain.train.callbacks.stopping import Stopped, StopRequest

    try:
        with StopRequest() as stop:
            training = Run(settings, stop)
            failed = evaluate_before(training)
            training.fit()
            failed = evaluate_after(training) or failed
            publish(training)
            if failed:
                raise failed
    except Stopped as stopped:
        leave(stopped, leads=is_main_process())


if __name__ == "__main__":
    main()
