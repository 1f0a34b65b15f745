"""Ctrl-C and closed pipes: a command ends with one sentence and status 130, or goes on unread; no traceback.

Only os, signal and sys are imported here, so that Ctrl-C is answered before the slow imports begin.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

STATUS = 128 + signal.SIGINT
IMPORTS = "<frozen importlib._bootstrap>"


class Interruption:
    """What Ctrl-C does: at once outside `working`, and by KeyboardInterrupt within, so that writers clean up.

    A second Ctrl-C does not wait. An import that is interrupted can fail in any way, so it ends at once too.
    """

    def __init__(self) -> None:
        self.sentence = ""
        self.came = False  # whether Ctrl-C was pressed while the command worked
        self._working = self._ending = False

    def listen(self) -> None:
        """Take Ctrl-C, unless the shell had it ignored or somebody else listens."""
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler and _in_main_thread():
            signal.signal(signal.SIGINT, self._answer)
            atexit.register(self._end)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Inside, Ctrl-C raises KeyboardInterrupt.

        Any error that follows Ctrl-C counts as that, since libraries turn the one into others.
        """
        self._working, self.came = True, False
        try:
            yield
        except (KeyboardInterrupt, Exception) as error:
            if isinstance(error, KeyboardInterrupt) or self.came:
                self.leave()
            raise
        finally:
            self._working = False

    def leave(self) -> NoReturn:
        """Say how to go on, and exit with 130."""
        print(f"stopped; {self.sentence}", file=sys.stderr)
        sys.exit(STATUS)

    def _answer(self, number: int, frame: FrameType | None) -> None:
        if not self.sentence:  # the process outlives the command, as in tests and notebooks
            if not self._ending and threading.main_thread().is_alive():
                raise KeyboardInterrupt
        elif self._working and not self.came and not _imports(frame):
            self.came = True
            raise KeyboardInterrupt
        self._leave_now()

    def _end(self) -> None:
        self._ending = True

    def _leave_now(self) -> NoReturn:
        said = f"stopped; {self.sentence}\n" if self.sentence else ""
        try:
            os.write(2, said.encode())
        finally:
            os._exit(STATUS)


INTERRUPTION = Interruption()


class Tolerant:
    """A stream whose reader may leave, as in `| head`: what is written then goes nowhere.

    A training of hours must not end because nobody reads its progress any more.
    """

    def __init__(self, stream: Any) -> None:  # noqa: ANN401 - a text stream of any kind
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or drop."""
        try:
            return int(self._stream.write(text))
        except BrokenPipeError:
            self._divert()
            return len(text)

    def flush(self) -> None:
        """Flush, or drop."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._divert()

    def _divert(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._stream, name)


@contextmanager
def answered(sentence: str) -> Iterator[None]:
    """Inside, Ctrl-C and closed pipes are answered.

    Args:
        sentence: true at any moment: what the same command does after a stop.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Tolerant(sys.stdout), Tolerant(sys.stderr)
    INTERRUPTION.sentence = sentence
    INTERRUPTION.listen()
    try:
        yield
    except KeyboardInterrupt:  # of a moment before or after the command works
        INTERRUPTION.leave()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before
        INTERRUPTION.sentence = ""


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _imports(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == IMPORTS:
            return True
        frame = frame.f_back
    return False
