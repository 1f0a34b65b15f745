"""What the first process of a training run says while it works."""

from __future__ import annotations

import time

from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console

console = Console(stderr=True)


def leads() -> bool:
    """Whether this process is the first of its command."""
    return bool(getattr(rank_zero_only, "rank", 0) == 0)


def say(text: str) -> None:
    """Print `text`, once for all processes."""
    if leads():
        console.print(text, highlight=False, soft_wrap=True)


def since(begun: float) -> str:
    """How long ago `begun`, of `time.monotonic()`, was."""
    seconds = time.monotonic() - begun
    return f"{int(seconds // 60)} min {seconds % 60:.0f} s" if seconds >= 60 else f"{seconds:.1f} s"
