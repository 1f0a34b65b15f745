"""The highest resident memory of parts of a program, from Linux's own count."""

from __future__ import annotations

import ctypes
import gc
import re
import resource
import time
from pathlib import Path

from torch import nn

MIB, GIB = 2**20, 2**30


def status(name: str) -> int:
    """A line of /proc/self/status, in bytes."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None, name
    return 1024 * int(found[1])


class Mark:
    """The highest resident memory of each part of what follows, in MiB above what is resident now.

    Gradients of parameters are resident now, dropped, and made again: a part that runs without them is
    measured above what is resident without them.
    """

    def __init__(self, limit_gb: float, gradients_of: nn.Module | None = None) -> None:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        most = status("VmSize") + round(limit_gb * GIB)  # beyond it an allocation fails
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
        self.parts: dict[str, float] = {}
        owned = [] if gradients_of is None else gradients_of.parameters()
        self.dropped = sum(item.grad.nbytes for item in owned if item.grad is not None) / MIB
        self.begun = time.perf_counter()
        self.before = status("VmRSS")
        self.restart()

    def part(self, name: str, *, without_gradients: bool = False) -> None:
        """End a part here and begin the next."""
        absent = self.dropped if without_gradients else 0.0
        self.parts[name] = (status("VmHWM") - self.before) / MIB + absent
        self.restart()

    def held(self) -> float:
        """Resident now without gradients, in MiB above the start."""
        return (status("VmRSS") - self.before) / MIB + self.dropped

    def result(self, **more: float) -> dict[str, object]:
        """The peak and its parts."""
        seconds = time.perf_counter() - self.begun
        return {"peak": max(self.parts.values()), "parts": self.parts, "seconds": seconds, **more}

    def restart(self) -> None:
        """Take what is resident now for the highest so far."""
        Path("/proc/self/clear_refs").write_text("5")
