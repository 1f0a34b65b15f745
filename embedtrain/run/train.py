"""A training from its settings to its published model."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from embedtrain.files.locks import only_thread
from embedtrain.run.numbers import check_optimized, logged
from embedtrain.run.publish import evaluate_after, evaluate_before, evaluate_stage, publish
from embedtrain.run.run import Run
from embedtrain.settings.commands import TrainSettings
from embedtrain.training.callbacks.stopping import Stopped, StopRequest


def train(settings: TrainSettings, stop: StopRequest | None = None, words: Sequence[str] = ()) -> Run:
    """One run: measure, train, save, cut, measure again, judge. A run that was stopped continues.

    Args:
        settings: of the command.
        stop: what signals ask for.
        words: of the command line, for advice that can be typed.

    Raises:
        InputError: for what the user can mend.
        IncompleteError: once all is written, if a task could not be scored.
        Stopped: if a signal ended it; the last whole step is saved.
    """
    with only_thread(f"the run {settings.name}"):
        return _trained(settings, stop, words)


def train_here(settings: TrainSettings) -> Run:
    """As `train`, in a process that goes on afterwards: Ctrl-C in its main thread ends the step.

    Raises:
        KeyboardInterrupt: after Ctrl-C; the last whole step is saved.
    """
    try:
        with StopRequest((signal.SIGINT,)) as stop:
            return train(settings, stop)
    except (Stopped, Exception) as error:  # workers get Ctrl-C too, whose ends are errors here
        if stop.noted is None:
            raise
        saved = f"step {error.saved} is saved; " if isinstance(error, Stopped) and error.saved else ""
        raise KeyboardInterrupt(f"{saved}the same call continues from the last checkpoint, if any") from None


def _trained(settings: TrainSettings, stop: StopRequest | None, words: Sequence[str]) -> Run:
    check_optimized(settings)
    run = Run(settings, stop, words)
    try:
        with logged(run):
            failures = [evaluate_before(run)]
            run.fit(lambda stage: failures.append(evaluate_stage(run, stage)))
            published = publish(run)
            failures.append(evaluate_after(run, published))
            failed = next(filter(None, reversed(failures)), None)
            if not failed:
                run.finish()
    finally:
        run.folder.release()
    if failed:
        raise failed
    return run
