"""Work spread over forked processes, which see the parent's memory and so copy no vectors.

One process per piece of work: each starts from the same state, and one that is killed takes nothing along.
A GPU that the parent uses is none to them: CUDA cannot be used after a fork.
Linux only, as is the promise that a child does not outlive its parent.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Generic, NamedTuple, TypeVar

import torch

from embedtrain.types import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
MOST_BY_DEFAULT = 4  # processes; more fight over memory bandwidth, and the encoder's machine has other users


def usable_workers(asked: int | None) -> int:
    """How many processes may score at once: `asked`, by default one a core and at most 4; 1 without fork.

    Raises:
        InputError: fewer than 1 asked for.
    """
    if asked is not None and asked < 1:
        raise InputError(f"scoring_workers must be at least 1, got {asked}")
    if not sys.platform.startswith("linux"):
        return 1
    return min(len(os.sched_getaffinity(0)), MOST_BY_DEFAULT) if asked is None else asked


class _Message(NamedTuple, Generic[Result]):
    """What a child sends home."""

    result: Result | None
    error: str | None = None
    refused: bool = False  # the error is an InputError
    errno: int | None = None  # of an OSError


def forked(
    work: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[tuple[Item, Result]]:
    """(item, work(item)) of every item in the order given, computed by `workers` forked processes.

    Raises:
        InputError, OSError: as `work` raised it.
        RuntimeError: whatever else it raised, with the traceback as text, or that a process was killed.
    """
    context = multiprocessing.get_context("fork")
    running: dict[Connection, tuple[int, BaseProcess]] = {}
    done: dict[int, Result] = {}
    started = given = 0
    try:
        while given < len(items):
            while started < len(items) and len(running) < workers:
                here, there = context.Pipe(duplex=False)
                arguments = (work, items[started], there, os.getpid())
                child: BaseProcess = context.Process(target=_child, args=arguments, daemon=True)
                child.start()
                there.close()
                running[here] = (started, child)
                started += 1
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                position, child = running.pop(ready)
                done[position] = _received(ready, child)
            while given in done:
                yield items[given], done.pop(given)
                given += 1
    finally:
        for _, child in running.values():
            child.kill()
            child.join()


def _received(ready: Connection, child: BaseProcess) -> Result:  # type: ignore[type-var]
    try:
        message: _Message[Result] = ready.recv()
    except EOFError:
        child.join()
        raise RuntimeError(
            f"a scoring process ended with status {child.exitcode}, perhaps for lack of memory; "
            "scoring_workers=1 scores in this process"
        ) from None
    finally:
        ready.close()
    child.join()
    if message.errno is not None:
        raise OSError(message.errno, message.error)
    if message.error is not None:
        raise InputError(message.error) if message.refused else RuntimeError(message.error)
    return message.result  # type: ignore[return-value]


def _child(work: Callable[[Item], Result], item: Item, home: Connection, parent: int) -> None:
    """The life of one process."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the promise
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its children
    torch.cuda.is_available = lambda: False
    logging.disable(logging.CRITICAL)  # a handler's lock may have been held when this process was forked
    message: _Message[Result]
    try:
        message = _Message(work(item))
    except InputError as error:
        message = _Message(None, str(error), refused=True)
    except OSError as error:
        message = _Message(None, error.strerror or str(error), errno=error.errno)
    except BaseException as error:
        message = _Message(None, f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
    home.send(message)
    home.close()
