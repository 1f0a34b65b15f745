"""Kill a small run again and again, and compare what it ends with to the run that nobody killed.

    python benchmarks/kill_test.py --kills 50

Two runs that keep all the state a run can have (they differ where parts exclude each other) are each trained
once without a kill. Then the same command is started, killed by SIGKILL at a random moment and started again,
until it finishes; and from the beginning under another name, until there were as many kills as asked for.
Final weights, metrics, optimiser, queue, mined negatives and best score must be equal bit for bit.
"""
# ruff: noqa: ANN401 - containers of anything, and numbers that processes share

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from ctypes import c_int
from dataclasses import replace
from multiprocessing.sharedctypes import RawArray, RawValue
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import warm
from kill_runs import RUNS, STEPS, write_runs

from embedtrain.settings.commands import TrainSettings

AIMS = {"start": 1, "step": 4, "save": 2, "validation": 1, "mining": 2}  # phase -> how often it is aimed at
LONGEST = {  # phase -> most seconds from its beginning to the kill
    "start": 1.0,
    "step": 0.03,
    "save": 0.03,
    "validation": 0.05,
    "mining": 0.4,
    "measuring": 0.8,
}


class Kill(NamedTuple):
    """One SIGKILL."""

    phase: str  # where it came
    done: int  # optimiser steps taken when it came
    saved: int  # of those, kept by the newest checkpoint


def main() -> None:
    """The command line: run, compare, report; status 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--words", nargs="*", default=[], help="further words of the command")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="embedtrain-kill-") as folder:
        found = kill_test(Path(folder), given.kills, random.Random(given.seed), given.words)
    text = json.dumps(found, indent=2) + "\n"
    print(text, end="")
    if given.out is not None:
        given.out.write_text(text, "utf-8")
    if found["different"] or found["bytes_lost"]:
        sys.exit("what was killed differs from what was not")


def kill_test(folder: Path, kills: int, draw: random.Random, words: list[str]) -> dict[str, Any]:
    """The report, as it is printed."""
    begun = time.monotonic()
    configs = write_runs(folder, words)
    expected = {kind: uninterrupted(folder, kind, configs[kind]) for kind in RUNS}
    found: list[Kill] = []
    different, lost, starts, runs = [], 0, 0, 0
    while len(found) < kills:
        kind = list(RUNS)[runs % len(RUNS)]
        name = f"{kind}_{runs}"
        more, started = until_finished(folder, replace(configs[kind], name=name), draw, kills - len(found))
        found, starts, runs = found + more, starts + started, runs + 1
        result = contents(folder / "runs" / name)
        different += [f"{name}: {part}" for part in result if result[part] != expected[kind][part]]
        lost += sum(
            abs(len(result[part]) - len(expected[kind][part])) for part in ("metrics", "mined", "model")
        )
        print(f"{name}: {len(more)} kills, {'different' if different else 'the same bits'}", file=sys.stderr)
    return {
        "kills": len(found),
        "kills_by_phase": dict(Counter(kill.phase for kill in found)),
        "runs": runs,
        "steps_of_a_run": STEPS,
        "restarts": starts - runs,
        "steps_redone": sum(kill.done - kill.saved for kill in found),
        "bytes_lost": lost,
        "different": different,
        "seconds": round(time.monotonic() - begun, 1),
    }


def uninterrupted(folder: Path, kind: str, settings: TrainSettings) -> dict[str, bytes]:
    """What a run ends with that nobody kills."""
    name = f"{kind}_whole"
    process = warm.start_run(replace(settings, name=name), folder, folder / f"{name}.log")
    process.join()
    if process.exitcode:
        sys.exit((folder / f"{name}.log").read_text("utf-8"))
    return contents(folder / "runs" / name)


def until_finished(
    folder: Path, settings: TrainSettings, draw: random.Random, most: int
) -> tuple[list[Kill], int]:
    """Start, kill, start again; the kills, and how often it was started."""
    kills: list[Kill] = []
    starts, log, run = 0, folder / f"{settings.name}.log", folder / "runs" / settings.name
    while True:
        phase, done, begun = RawValue(c_int, 0), RawValue(c_int, 0), RawArray(c_int, len(warm.PHASES))
        process = warm.start_run(settings, folder, log, watch=(phase, done, begun))
        starts += 1
        if len(kills) < most:
            _wait(process, begun, AIMS | ({"measuring": 1} if settings.eval_during else {}), draw)
            if process.is_alive():
                os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        if process.exitcode == 0:
            return kills, starts
        if process.exitcode != -signal.SIGKILL:
            sys.exit(log.read_text("utf-8")[-4000:])
        saved = newest_step(run)
        kills.append(Kill(warm.PHASES[phase.value], max(done.value, saved), saved))


def _wait(process: Any, begun: Any, aims: Mapping[str, int], draw: random.Random) -> None:
    """Until the moment of the kill: a random time after a random phase has begun for the n-th time.

    Aiming lets phases that are short or rare be hit too. The run goes on meanwhile, so where a kill comes is
    what the run says when it does.
    """
    aim = draw.choices(list(aims), weights=list(aims.values()))[0]
    times = draw.randint(1, 16) if aim == "step" else 1
    phase, end = warm.PHASES.index(aim), warm.PHASES.index("end")
    while aim != "start" and process.is_alive() and begun[phase] < times and not begun[end]:
        time.sleep(0.0005)
    time.sleep(draw.uniform(0.0, LONGEST[aim]))


def newest_step(run: Path) -> int:
    """The step of the newest checkpoint; 0 without one."""
    steps = [int(path.stem.partition("_")[2]) for path in (run / "checkpoints").glob("step_*.ckpt")]
    return max(steps, default=0)


def contents(run: Path) -> dict[str, bytes]:
    """What a finished run consists of, without the one thing that is no function of it: its speed."""
    import torch

    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    best = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    for row in rows:
        row.pop("train/pairs_per_second", None)
        row.pop("train/seconds_per_step", None)
    parts = {
        "weights": state["state_dict"],
        "optimizer": state["optimizer_states"],
        "queue": state.get("queue"),
    }
    for callback in state["callbacks"].values():
        callback.pop("seconds", None)  # what measuring took: for a limit of time that is not set here
    parts |= {"schedule": state["lr_schedulers"], "callbacks": state["callbacks"], "best": best["state_dict"]}
    found = {name: hashlib.sha256(_bytes(part)).digest() for name, part in parts.items()}
    found["metrics"] = "".join(json.dumps(row) + "\n" for row in rows).encode()
    found["mined"] = b"".join(path.read_bytes() for path in sorted((run / "mined").iterdir()))
    found["model"] = (run / "model/model.safetensors").read_bytes()
    return found


def _bytes(part: Any) -> bytes:
    """A nest of containers and tensors, to the last bit."""
    import torch

    if isinstance(part, torch.Tensor):
        return repr((part.dtype, tuple(part.shape))).encode() + part.contiguous().numpy().tobytes()
    if isinstance(part, dict):
        return b"".join(repr(key).encode() + _bytes(value) for key, value in part.items())
    if isinstance(part, list | tuple):
        return b"".join(_bytes(value) for value in part)
    return repr(part).encode()


if __name__ == "__main__":
    main()
