"""Peak memory of one training step by batch size; with --candidates, of the similarities alone.

    python benchmarks/memory.py [--sizes 64 256 1024 4096] [--peer-sizes 64 256 1024] [--max-tokens 8192]
    python benchmarks/memory.py --candidates 80000 [--queries 1024]          (--tiny with either: does it run)

One step as `embedtrain-train` takes it: Lightning's trainer, our module, MiniLM on six fixed pairs, loss and
rule of GISTEmbed with MiniLM as guide, 4 hard negatives a query, GradCache with chunks of --max-tokens. Texts
are synthetic, 18 to 24 tokens. Each size has a process of its own, which first takes two tiny steps, so that
gradients and the state of AdamW are there. Printed is the highest resident memory (VmHWM, set back through
/proc/self/clear_refs) up to the optimiser's step, above what is resident before: without model, guide,
gradients of the parameters, optimiser and tokens of the batch. Freed memory goes back at once
(MALLOC_MMAP_THRESHOLD_), which costs time.

    encode   first pass: all texts without gradient
    loss     guide, pairing, objective and its gradient
    again    second pass: chunks with gradient
    held     resident after the loss: what outlives the chunks

Beside it sentence-transformers' CachedGISTEmbedLoss on the same texts, at the full size alone (none of its 2D
losses is cached), with mini-batches of as many tokens; they are also the rows of a chunk of its loss.

With --candidates: that many documents, 768 wide, against --queries, forward and backward, above the vectors
given: one float32 matrix of all similarities, InfoNCE as anyone writes it at one width, and our objective on
six prefixes with real pairing, without and with a guide's rule. The gradient of the vectors, which every loss
must give, is a part of it and is listed.

No process may ask for more than --limit-gb above what it has; it then counts as over that. Linux only.
10-15 minutes on two weak cores, of which 4096 takes two thirds; --candidates 2-3.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

WORKER = Path(__file__).with_name("memory_worker.py")
ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(2**18),  # a tensor of 256 KiB or more goes back when it is freed
    "MALLOC_TRIM_THRESHOLD_": str(2**18),
    "MALLOC_ARENA_MAX": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
OURS, PEER = "embedtrain", "sentence-transformers"
SIMILARITIES = (
    "one float32 matrix",
    "plain InfoNCE, 768",
    "embedtrain, 6 prefixes",
    "embedtrain, 6 prefixes, guide",
)
PARTS = ("encode", "loss", "encode and loss", "again")
Result = dict[str, Any]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[64, 256, 1024, 4096])
    parser.add_argument("--peer-sizes", type=int, nargs="*", default=[64, 256, 1024])
    parser.add_argument("--max-tokens", type=int, default=8192)
    parser.add_argument("--hard", type=int, default=4)
    parser.add_argument("--candidates", type=int)
    parser.add_argument("--queries", type=int, default=1024)
    parser.add_argument("--limit-gb", type=float, default=12.0)
    parser.add_argument("--tiny", action="store_true", help="sizes 8 and 16, or 2,000 candidates")
    parser.add_argument("--out", type=Path, help="default: results/memory.json or memory_candidates.json")
    given = parser.parse_args()
    if given.tiny:
        given.sizes, given.peer_sizes, given.max_tokens = [8, 16], [8], 512
        given.queries, given.candidates = 64, given.candidates and 2000
    elif given.out is None:
        name = "memory_candidates.json" if given.candidates else "memory.json"
        given.out = Path(__file__).parent / "results" / name
    return given


def measure(**what: Any) -> Result:  # noqa: ANN401
    """One measurement in a process of its own."""
    command = [sys.executable, str(WORKER), json.dumps(what)]
    done = subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{what} failed with {done.returncode}:\n{done.stderr[-3000:]}")
    result: Result = json.loads(done.stdout.splitlines()[-1])
    return result


def steps(options: argparse.Namespace) -> list[Result]:
    """One step at every size, ours and theirs."""
    found = []
    for side, what, sizes in ((OURS, "ours", options.sizes), (PEER, "peer", options.peer_sizes)):
        for size in sizes:
            result = measure(
                what=what,
                size=size,
                hard=options.hard,
                max_tokens=options.max_tokens,
                limit_gb=options.limit_gb,
            )
            found.append({"side": side, "size": size, **result})
            print(f"{side}, {size} queries: {shown(result['peak'], options)} MiB", flush=True)
    table = Table(title="MiB of one step above model, gradients and optimiser", box=box.SIMPLE_HEAD)
    for name in ("side", "queries", "peak", "to the first", *PARTS, "held", "seconds"):
        table.add_column(name, justify="left" if name == "side" else "right")
    for row in found:
        first = next(other for other in found if other["side"] == row["side"])
        parts = row.get("parts", {})
        table.add_row(
            row["side"],
            str(row["size"]),
            shown(row["peak"], options),
            f"{row['peak'] / first['peak']:.2f}" if row["peak"] and first["peak"] else "",
            *(f"{parts[name]:.0f}" if name in parts else "" for name in PARTS),
            *(f"{row[name]:.0f}" if name in row else "" for name in ("held", "seconds")),
        )
    Console(width=130).print(table)
    return found


def similarities(options: argparse.Namespace) -> list[Result]:
    """The similarities of many candidates, in every way."""
    found = []
    print(
        f"{options.queries} x {options.candidates} x 768, forward and backward; MiB above the vectors given"
    )
    for way in SIMILARITIES:
        result = measure(
            what="similarities",
            way=way,
            queries=options.queries,
            candidates=options.candidates,
            limit_gb=options.limit_gb,
        )
        found.append({"way": way, **result})
        matrix, peak = found[0]["peak"], result["peak"]
        ratio = f"x {peak / matrix:.2f} of the matrix   {result['seconds']:.1f} s" if peak and matrix else ""
        print(f"  {way:32} {shown(peak, options):>14}   {ratio}", flush=True)
    print(f"  in each but the first: gradient of the vectors {found[0]['gradients']:.0f}")
    return found


def shown(peak: float | None, options: argparse.Namespace) -> str:
    """MiB, or that it was more than allowed."""
    return f"over {options.limit_gb:g} GB" if peak is None else f"{peak:.0f}"


def main() -> None:
    """Measure, print and write."""
    options = arguments()
    found = similarities(options) if options.candidates else steps(options)
    if options.out is None:
        return
    kept = {
        "settings": {key: value for key, value in vars(options).items() if key != "out"},
        "versions": {name: version(name) for name in ("torch", "transformers", "sentence-transformers")},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, python {platform.python_version()}",
        "found": found,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
