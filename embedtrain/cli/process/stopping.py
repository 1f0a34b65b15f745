"""How `embedtrain-train` leaves when a signal ended it: what it says, the exit status, and SLURM's queue.

The status is 128 + the number of the signal, as a shell reports it: 143 after SIGTERM, 138 after SIGUSR1, 130
after Ctrl-C. Only the first process gives it. A launcher takes any other status than 0 of the others for a
crash and kills the first before it has spoken.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from embedtrain.settings.commands import TrainSettings
from embedtrain.training.callbacks.stopping import Stopped


def again(settings: TrainSettings) -> str:
    """What the same command does next."""
    folder = Path(settings.output_root, settings.name)
    if any(folder.glob("**/checkpoints/*.ckpt")):
        return "the same command continues from the last checkpoint"
    return "no step is saved, so the same command begins with the first one and keeps what is measured"


def leave(stopped: Stopped, more: str, *, leads: bool) -> NoReturn:
    """Say how to go on (`more`), queue a SLURM job again that was warned with SIGUSR1, and exit."""
    if not leads:
        sys.exit(0)
    saved = "" if stopped.saved is None else f" at step {stopped.saved}, which is saved"
    print(f"stopped by {stopped.by.name}{saved}; {more}", file=sys.stderr)
    job = job_to_requeue(os.environ)
    if stopped.by == signal.SIGUSR1 and job is not None:
        _requeue(job)
    sys.exit(128 + stopped.by)


def job_to_requeue(environment: Mapping[str, str]) -> str | None:
    """The SLURM job (of an array, its element) that `environment` belongs to; None outside one.

    None too for a job of submitit, which queues its jobs again itself.
    """
    if "SUBMITIT_EXECUTOR" in environment:
        return None
    array, element = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{element}" if array and element else environment.get("SLURM_JOB_ID")


def _requeue(job: str) -> None:
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, timeout=60)
        print(f"SLURM job {job} is in the queue again", file=sys.stderr)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"SLURM job {job} could not be queued again ({error}): submit it yourself", file=sys.stderr)
