"""Training steps beside sentence-transformers': CPU-seconds, wall, memory, and whether the losses are equal.

    python benchmarks/train_speed.py --data-root DIR [--rows sts-float32 ...] [--threads 1] [--again]

Both sides train MiniLM with their own trainer, in processes forked from one that has imported both, in turns.
Clocks are read after a few steps and again after more steps of one run: start-up and first steps cancel. A
ratio is theirs over ours in CPU-seconds; the median of the pairs of runs counts. Both sides see equal batches
of 64 rows (512 with GradCache) of at most 128 tokens, none of whose texts comes twice. First, in rows of
float32, both train 20 steps without dropout at a constant learning rate: their losses must differ by less
than 1e-3.

`pairs` is ours on six (layer, dim) against Matryoshka2dLoss on all layers and dims, which are other losses;
`defaults` is our precision and length left at their defaults against theirs. Each result is written at once
to --out, and a row that is there is not measured again. Nothing passes or fails.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the commands set it; before torch is imported
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from in_process import read, write
from tokens import cranfield, dictionary
from train_sides import BACKBONE, Work, run, without_dropout
from warm import IMPORTED, forked

EQUAL_STEPS, MAX_LENGTH = 20, 128
PRELOADED = (
    *IMPORTED,
    "datasets",
    "sentence_transformers",
    "sentence_transformers.sentence_transformer.losses",
)


class Row(NamedTuple):
    """What is measured."""

    data: str
    kind: str
    precision: str = "float32"
    batch: int = 64
    steps: tuple[int, int] = (3, 13)  # clocks are read after them


ROWS = {
    f"{data}-{kind}-{precision}": Row(data, kind, precision)
    for data, kinds in (("sts", ("infonce", "dims", "pairs", "guide")), ("dictionary", ("infonce", "pairs")))
    for kind in kinds
    for precision in ("float32", "bf16")
} | {
    "cranfield-infonce-float32": Row("cranfield", "infonce", steps=(2, 6)),
    "cranfield-infonce-bf16": Row("cranfield", "infonce", "bf16", steps=(2, 6)),
    "dictionary-gradcache-float32": Row("dictionary", "gradcache", batch=512, steps=(1, 3)),
    "dictionary-gradcache-bf16": Row("dictionary", "gradcache", "bf16", batch=512, steps=(1, 3)),
    "sts-defaults": Row("sts", "infonce", "default"),
}


def main() -> None:
    """Measure what is asked for and not there yet, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data-root", type=Path, default=os.environ.get("EMBEDTRAIN_DATA"))
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS), metavar="ROW")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3, help="pairs of runs")
    parser.add_argument("--again", action="store_true", help="measure rows that are there once more")
    parser.add_argument("--tiny", action="store_true", help="two steps of 8 rows: does it run")
    parser.add_argument("--out", type=Path, help="default: results/train_speed.json; with --tiny none")
    given = parser.parse_args()
    if given.data_root is None:
        parser.error("give --data-root DIR, or set EMBEDTRAIN_DATA")
    if given.out is None and not given.tiny:
        given.out = Path(__file__).parent / "results" / "train_speed.json"
    there = given.out is not None and given.out.exists()
    found = json.loads(given.out.read_text("utf-8"))["rows"] if there else []
    with tempfile.TemporaryDirectory() as name:
        for row in given.rows:
            if not given.again and any((old["row"], old["threads"]) == (row, given.threads) for old in found):
                continue
            new = measured(row, given, Path(name))
            found = [old for old in found if (old["row"], old["threads"]) != (row, given.threads)] + [new]
            write(given.out, given, {"rows": found})
            print(shown(new), flush=True)


def measured(name: str, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A line of the results."""
    row = ROWS[name]
    if given.tiny:
        row = row._replace(batch=8, steps=(1, 2))
    rows = rows_of(row.data, Path(given.data_root), folder, tiny=given.tiny)
    length = None if row.precision == "default" else MAX_LENGTH
    how = (row.kind, row.precision, str(rows), row.batch, *row.steps, given.threads)
    plain = Work("", *how, str(BACKBONE), length, False)
    comparable = row.kind != "pairs" and row.precision == "float32"
    equal = difference(plain, folder, tiny=given.tiny) if comparable else None
    sides: dict[str, list[dict[str, Any]]] = {"ours": [], "peer": []}
    for turn in range(1 if given.tiny else given.repeats):
        for side in list(sides)[:: 1 if turn % 2 == 0 else -1]:
            sides[side].append(trained(plain._replace(side=side), folder))
    ratios = {
        what: median(b[what] / a[what] for a, b in zip(sides["ours"], sides["peer"], strict=True))
        for what in ("cpu", "wall")
    }
    ours, peer = sides["ours"], sides["peer"]
    return {
        "row": name,
        "threads": given.threads,
        "ratio_cpu": ratios["cpu"],
        "ratio_wall": ratios["wall"],
        "ours_cpu": median(item["cpu"] for item in ours),
        "peer_cpu": median(item["cpu"] for item in peer),
        "ours_wall": median(item["wall"] for item in ours),
        "peer_wall": median(item["wall"] for item in peer),
        "ours_mib": max(item["peak_mib"] for item in ours),
        "peer_mib": max(item["peak_mib"] for item in peer),
        "loss_difference": equal,
        "ratios": [b["cpu"] / a["cpu"] for a, b in zip(ours, peer, strict=True)],
    }


def shown(row: dict[str, Any]) -> str:
    """A line of the results in words."""
    equal = (
        "losses not compared"
        if row["loss_difference"] is None
        else f"losses differ by {row['loss_difference']:.1e}"
    )
    return (
        f"{row['row']}, {row['threads']} thread(s): {row['ratio_cpu']:.2f} x ({row['ours_cpu']:.3f} against "
        f"{row['peer_cpu']:.3f} CPU-s a step), wall {row['ratio_wall']:.2f} x, {row['ours_mib']:.0f} against "
        f"{row['peer_mib']:.0f} MiB, {equal}"
    )


def difference(work: Work, folder: Path, *, tiny: bool) -> float:
    """The largest difference of the losses of equal steps, in float32 without dropout."""
    steps = 2 if tiny else 3 if work.kind == "gradcache" else EQUAL_STEPS
    backbone = folder / "without_dropout"
    if not backbone.exists():
        without_dropout(BACKBONE, backbone)
    equal = work._replace(
        precision="float32", short=1, long=steps, threads=1, backbone=str(backbone), equal=True
    )
    ours, peer = (trained(equal._replace(side=side), folder)["losses"] for side in ("ours", "peer"))
    return max(abs(a - b) for a, b in zip(ours, peer, strict=True))


def trained(work: Work, folder: Path) -> dict[str, Any]:
    """What one side took, in a process of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        out, log = Path(name) / "out.json", Path(name) / "log"
        process = forked(run, Path(name), log, None, work, out, imported=PRELOADED)
        process.join()
        if process.exitcode or not out.exists():
            raise SystemExit(f"{work} failed with {process.exitcode}:\n{log.read_text('utf-8')[-3000:]}")
        found: dict[str, Any] = json.loads(out.read_text("utf-8"))
        return found


def rows_of(data: str, root: Path, folder: Path, *, tiny: bool) -> Path:
    """A file of pairs, each text in one of them alone: both sides then do the same work."""
    path = folder / f"{data}-once.jsonl"
    if path.exists():
        return path
    if data == "sts":
        scored = read(root / "sts" / "stsbenchmark" / "train.jsonl")
        rows: Iterable[dict[str, Any]] = (
            {"query": row["sentence1"], "positive": row["sentence2"]} for row in scored if row["score"] >= 4
        )
    else:
        made = (
            cranfield(folder, root) if data == "cranfield" else dictionary(folder, 3_000 if tiny else 20_000)
        )
        rows = read(made)
    seen, lines = set[str](), []
    for row in rows:
        # MiniLM's tokens know neither case nor spaces; a pair of equal tokens is its own negative in theirs
        pair = {"".join(row[key].lower().split()) for key in ("query", "positive")}
        if len(pair) == 2 and not pair & seen:
            seen |= pair
            lines.append(json.dumps({"query": row["query"], "positive": row["positive"]}) + "\n")
    path.write_text("".join(lines), "utf-8")
    return path


if __name__ == "__main__":
    main()
