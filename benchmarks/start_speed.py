"""From the command to the end of the first training step, beside a script of sentence-transformers.

    python benchmarks/start_speed.py [--rows 70000] [--repeats 3]

Both sides train MiniLM on pairs of the dictionary, in batches of 64 and in float32: `embedtrain-train`,
and their trainer on a data set of the same file. Each is a process of its own, in turns. It ends when
the optimiser has stepped once, and says what it took until then: CPU-seconds of all its threads, and
wall seconds. With --imports instead: the modules that ours spends most time importing. Nothing passes or
fails.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

SIDES = ("ours", "peer")
BATCH = 64
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=70_000)
    parser.add_argument("--repeats", type=int, default=3, help="pairs of runs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--imports", action="store_true")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)  # this process is one of them
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="default: results/start_speed.json")
    given = parser.parse_args()
    if given.side is not None:
        {"ours": ours, "peer": peer}[given.side](*given.work)
        return
    from in_process import BACKBONE, write
    from tables import show
    from tokens import dictionary

    with tempfile.TemporaryDirectory() as name:
        rows = dictionary(Path(name), given.rows)
        if given.imports:
            show({"imports": imports(rows, BACKBONE, Path(name), given.threads)})
            return
        found = measured(rows, str(BACKBONE), Path(name), given.repeats, given.threads)
    show(found)
    write(given.out or Path(__file__).parent / "results" / "start_speed.json", given, found)


def measured(
    rows: Path, backbone: str, folder: Path, repeats: int, threads: int, batch: int = BATCH
) -> dict[str, Any]:
    """A line for each pair of runs, and the medians of their ratios."""
    lines = []
    for turn in range(repeats):
        took = {}
        for side in SIDES[:: 1 if turn % 2 == 0 else -1]:
            place = folder / f"{side}-{turn}"
            _run([], side, (rows, backbone, place, batch), threads)
            took[side] = json.loads(place.with_suffix(".json").read_text("utf-8"))
        lines.append({f"{side}_{what}": value for side in SIDES for what, value in took[side].items()})
    ratios = {
        what: median(line[f"peer_{what}"] / line[f"ours_{what}"] for line in lines)
        for what in ("cpu", "wall")
    }
    return {"start": lines, "ratio_cpu": ratios["cpu"], "ratio_wall": ratios["wall"]}


def imports(rows: Path, backbone: str, folder: Path, threads: int) -> list[dict[str, Any]]:
    """The modules below which most milliseconds of imports are."""
    said = _run(["-X", "importtime"], "ours", (rows, backbone, folder / "ours", BATCH), threads)
    found = re.findall(r"^import time: +(\d+) \| +(\d+) \| *(\S+)$", said, re.MULTILINE)
    lines = [
        {"module": name, "own_ms": int(own) / 1e3, "below_ms": int(all_) / 1e3} for own, all_, name in found
    ]
    return sorted(lines, key=lambda line: -line["below_ms"])[:60]


def _run(options: Sequence[str], side: str, work: tuple[Path, str, Path, int], threads: int) -> str:
    """What the process of a side writes to its standard error."""
    place = work[2]
    script = [str(Path(__file__)), "--side", side, "--work", *map(str, work)]
    environment = {**os.environ, **ENVIRONMENT, "OMP_NUM_THREADS": str(threads)}
    environment |= {"BEGUN": str(time.time())}
    done = subprocess.run(
        [sys.executable, *options, *script], env=environment, capture_output=True, text=True
    )
    if done.returncode or not place.with_suffix(".json").exists():
        raise SystemExit(f"{side} failed with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-3000:]}")
    return done.stderr


def _end_after_a_step(place: str) -> None:
    """Let the process end when an optimiser has stepped, and write what it took."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    def end(*_: object) -> None:
        wall, used = time.time() - float(os.environ["BEGUN"]), os.times()
        Path(place).with_suffix(".json").write_text(json.dumps({"cpu": sum(used[:4]), "wall": wall}))
        os._exit(0)

    register_optimizer_step_post_hook(end)


def ours(rows: str, backbone: str, place: str, batch: str) -> None:
    """`embedtrain-train` on the file."""
    _end_after_a_step(place)
    from embedtrain.cli.train import main as train

    given = {"name": "start", "output_root": place, "data.train": rows, "data.batch_size": batch}
    given |= {"backbone.path": backbone, "plan": "full"}
    given |= {"trainer.max_steps": 100, "trainer.precision": "32-true"}
    sys.argv = ["embedtrain-train", *(f"{key}={value}" for key, value in given.items())]
    train()


def peer(rows: str, backbone: str, place: str, batch: str) -> None:
    """The same by sentence-transformers."""
    _end_after_a_step(place)
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    model = SentenceTransformer(backbone, device="cpu")
    table = Dataset.from_json(rows, cache_dir=f"{place}/cache")
    settings = SentenceTransformerTrainingArguments(
        output_dir=place,
        max_steps=100,
        per_device_train_batch_size=int(batch),
        learning_rate=2e-5,
        warmup_steps=10,
        weight_decay=0.01,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    loss = MultipleNegativesRankingLoss(model)
    SentenceTransformerTrainer(model=model, args=settings, train_dataset=table, loss=loss).train()


if __name__ == "__main__":
    main()
