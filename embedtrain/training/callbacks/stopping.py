"""Signals that ask a run to end: noted during steps, obeyed between two of them by all ranks at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from embedtrain.ranks import world_size
from embedtrain.training.distributed import sum_over_ranks
from embedtrain.transfers import moved

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Stopped(BaseException):
    """The run was asked to end and has done so; no `Exception`, so that nothing takes it for an error.

    Args:
        by: the signal.
        saved: the step of the checkpoint made for it; None if there was nothing to save.
    """

    def __init__(self, by: signal.Signals, saved: int | None = None) -> None:
        super().__init__(by.name)
        self.by, self.saved = by, saved


class StopRequest:
    """What signals asked for, as a context: outside it they do what they did before.

    Between steps (`defer` false) a signal raises `Stopped` where it finds the main thread. During steps it is
    noted, and whoever takes the steps asks `agreed` at their ends. A second Ctrl-C does not wait.

    Args:
        signals: which of them, the same on all ranks.

    Attributes:
        noted: the last signal that came.
    """

    def __init__(self, signals: Sequence[signal.Signals] = SIGNALS) -> None:
        self.signals = signals
        self.defer = False
        self.noted: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        self._before = {number: signal.getsignal(number) for number in self.signals}
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        if _in_main_thread():
            for number, handler in self._before.items():
                signal.signal(number, handler)
        self._before = {}

    def listen(self) -> None:
        """Take the signals. Once more when a library has taken them: Lightning does as it begins to train."""
        if self._before and _in_main_thread():
            for number in self.signals:
                signal.signal(number, self._note)

    def sent(self, device: torch.device) -> Tensor | None:
        """How many ranks were sent each signal, on the device; None for a rank alone, which knows by itself.

        Every rank must ask after the same step.
        """
        if world_size() == 1:
            return None
        return sum_over_ranks(
            moved(torch.tensor([float(number == self.noted) for number in SIGNALS]), device)
        )

    def agreed(self, counts: Sequence[float] | None) -> signal.Signals | None:
        """The signal that any rank was sent, the same on all, by the numbers of `sent` on the host."""
        if counts is None:
            return self.noted
        return next((number for number, count in zip(SIGNALS, counts, strict=True) if count), None)

    def obey(self) -> None:
        """Raise for a signal that was noted and came too late for a step to end after it.

        Raises:
            Stopped: by that signal.
        """
        if self.noted is not None:
            raise Stopped(self.noted)

    def _note(self, number: int, frame: FrameType | None) -> None:
        impatient = self.noted == number == signal.SIGINT
        self.noted = signal.Signals(number)
        if impatient or not self.defer:
            raise Stopped(self.noted)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
