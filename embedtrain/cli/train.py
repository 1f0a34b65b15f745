"""embedtrain-train: rows and a backbone in, a run folder with a trained model out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedtrain.cli.start import start

if TYPE_CHECKING:
    from embedtrain.settings.commands import TrainSettings


def main() -> None:
    """Entry point of `embedtrain-train`."""
    start("train")


def run(settings: TrainSettings) -> float | None:
    """One run: measure, train, measure again, save, cut; the number that a sweeper gets of it.

    Raises:
        IncompleteError: once all is written, if a task could not be scored.
    """
    from embedtrain.cli.line.job import job_words
    from embedtrain.cli.process.stopping import again, leave
    from embedtrain.console import is_main_process
    from embedtrain.run.numbers import optimized
    from embedtrain.run.train import train
    from embedtrain.training.callbacks.stopping import Stopped, StopRequest

    try:
        with StopRequest() as stop:
            trained = train(settings, stop, job_words())
        return optimized(trained) if is_main_process() else None
    except Stopped as stopped:
        leave(stopped, again(settings), leads=is_main_process())
    except Exception:  # a signal reaches ranks and workers too, whose ends are errors here
        if stop.noted is None:
            raise
        leave(Stopped(stop.noted), again(settings), leads=is_main_process())


if __name__ == "__main__":
    main()
