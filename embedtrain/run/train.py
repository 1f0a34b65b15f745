"""A training from its settings to its published model."""

from __future__ import annotations

from embedtrain.run.numbers import check_optimized, logged
from embedtrain.run.publish import evaluate_after, evaluate_before, publish
from embedtrain.run.run import Run
from embedtrain.settings.commands import TrainSettings
from embedtrain.training.callbacks.stopping import StopRequest


def train(settings: TrainSettings, stop: StopRequest | None = None) -> Run:
    """One run: measure, train, save, cut, measure again. A run that was stopped continues.

    Raises:
        InputError: for what the user can mend.
        IncompleteError: once all is written, if a task could not be scored.
        Stopped: if a signal ended it; the last whole step is saved.
    """
    check_optimized(settings)
    run = Run(settings, stop)
    try:
        with logged(run):
            failed = evaluate_before(run)
            run.fit()
            published = publish(run)
            failed = evaluate_after(run, published) or failed
            if not failed:
                run.finish()
    finally:
        run.folder.release()
    if failed:
        raise failed
    return run
