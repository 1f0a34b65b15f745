"""mteb run as a guest: its progress bars, log lines and random seeds do not reach the host."""

from __future__ import annotations

import contextlib
import logging
import random
import warnings
from collections.abc import Iterator

import numpy as np
import torch

_LOGGERS = ("mteb", "datasets", "sentence_transformers", "huggingface_hub", "httpx")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Inside, mteb and its libraries show no progress bars and no warnings; afterwards all is as before."""
    import datasets

    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    bars = datasets.are_progress_bars_disabled()
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            for module in ("mteb", "datasets", "sklearn", "scipy"):
                warnings.filterwarnings("ignore", module=rf"{module}(\.|$)")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if not bars:
            datasets.enable_progress_bars()


@contextlib.contextmanager
def kept_random_state() -> Iterator[None]:
    """Restores the global generators: mteb seeds them per task, and training would repeat its dropout."""
    python, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy_state)
