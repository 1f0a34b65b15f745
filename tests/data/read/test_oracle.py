"""Damaged rows of every form in every kind of file: each comes out as it was written, or is reported."""

import csv
import gzip
import json
import math
import random
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedtrain.data.read.bad_rows import BadRows
from embedtrain.data.read.sources import read_examples
from embedtrain.data.stores.arrow import ArrowRows

ROWS, SEEDS = 24, 3


def titled(text):
    return {"title": "", "text": text}


# form -> (query, positive, negative, score) to a row, and which of them it has
FORMS = {
    "own": (lambda q, p, n, s: {"query": q, "positive": p, "negatives": [n]}, "qpn"),
    "pair": (lambda q, p, n, s: {"query": q, "positive": p}, "qp"),
    "triplet": (lambda q, p, n, s: {"anchor": q, "positive": p, "negative": n}, "qpn"),
    "FlagEmbedding": (lambda q, p, n, s: {"query": q, "pos": [p], "neg": [n]}, "qpn"),
    "scored": (lambda q, p, n, s: {"sentence1": q, "sentence2": p, "score": s}, "qps"),
    "question": (lambda q, p, n, s: {"question": q, "answer": p}, "qp"),
    "DPR": (
        lambda q, p, n, s: {
            "question": q,
            "positive_ctxs": [titled(p)],
            "hard_negative_ctxs": [titled(n)],
        },
        "qpn",
    ),
    "set": (lambda q, p, n, s: {"set": [q, p]}, "qp"),
    "list": (lambda q, p, n, s: [q, p, n], "qpn"),
    "text": (lambda q, p, n, s: {"text": q}, "q"),
}
FLAT = ("pair", "triplet", "scored", "question", "text")
KINDS = {
    "a.jsonl": FORMS,
    "a.jsonl.gz": FORMS,
    "a.json": FORMS,
    "a.csv": FLAT,
    "a.tsv": FLAT,
    "a.parquet": [name for name in FORMS if name not in ("list", "scored")],
}
TEXTS = ("", "  ", "\u200b\u2060", None, 7, {"x": 1}, "a\ud800", True)  # no text that a tokenizer reads
NO_SCORES = ("abc", math.nan, math.inf, None, True, [0.5])
SAME = ("é\u0301 \U0001f600", 'quoted "so", with, commas', "two\nlines", "tab\tbed", "null", "1e5", "\\n")


def damaged(draw, form, kind):
    """(a row as it is written, the example that it must be; None for a row that must be reported)."""
    build, has = FORMS[form]
    number = draw.randrange(10**9)
    given = {"q": f"query {number}", "p": f"positive {number}", "n": f"negative {number}", "s": number / 8}
    expected = dict(given)
    typed = kind in ("a.csv", "a.tsv", "a.parquet")
    slot = draw.choice(has)
    match draw.choice(("nothing", "value", "same", "same", "key", "more")):
        case "value" if slot == "s":
            given["s"] = draw.choice(NO_SCORES[:4] if typed else NO_SCORES)
            expected = None
        case "value":
            # a line of a table without a letter is no row
            given[slot] = draw.choice(TEXTS[2:3] if form == "text" else TEXTS[:4] if typed else TEXTS)
            unread = slot == "n" and form != "DPR" and (given["n"] is None or given["n"] in ("", "  "))
            expected = expected | {"n": None} if unread else None
        case "same" if slot == "s":
            given["s"] = f" {given['s']}"
        case "same":
            given[slot] = expected[slot] = draw.choice(SAME[:1] if kind == "a.tsv" else SAME) + f" {number}"
        case "key" if not typed and form not in ("list", "set"):
            row = build(*given.values())
            name = draw.choice([key for key in row if not key.startswith(("neg", "hard"))])
            del row[name]
            return row, None
        case "more" if not typed and form not in ("list", "set"):
            row = dict(reversed([*build(*given.values()).items(), ("url", "http"), ("note", None)]))
            return row, example_of(form, expected)
    return build(*given.values()), example_of(form, expected)


def example_of(form, expected):
    if expected is None:
        return None
    has = FORMS[form][1]
    negatives = (expected["n"],) if "n" in has and expected["n"] is not None else ()
    score = expected["s"] if "s" in has else None
    return expected["q"], (expected["p"],) if "p" in has else (), negatives, score


def write(path, rows):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=7)
    elif path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="", encoding="utf-8") as file:
            lines = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            lines.writeheader()
            lines.writerows(rows)
    else:
        lines = [json.dumps(row) for row in rows]
        text = f"[{', '.join(lines)}]" if path.suffix == ".json" else "\n".join(lines)
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


@pytest.mark.parametrize("kind", KINDS)
def test_each_row_is_what_was_written_or_reported(kind, tmp_path):
    """In memory and streamed, in any order; what else lies in the folder stays."""
    count = Counter()
    for seed, form in ((seed, form) for seed in range(SEEDS) for form in KINDS[kind]):
        draw = random.Random(f"{kind} {form} {seed}")
        build = FORMS[form][0]
        written = [
            (
                build("q 0", "p 0", "n 0", 0.5),
                example_of(form, {"q": "q 0", "p": "p 0", "n": "n 0", "s": 0.5}),
            )
        ]
        written += [damaged(draw, form, kind) for _ in range(ROWS)]
        folder = tmp_path / f"{form}{seed}"
        folder.mkdir()
        (folder / "theirs.txt").write_text("theirs")
        write(folder / kind, [row for row, _ in written])
        bad_rows = BadRows("skip", folder / "out")
        found = [tuple(one[:4]) for one in read_examples(folder / kind, bad_rows=bad_rows)]
        reported = (
            [json.loads(line) for line in (folder / "out/bad_rows.jsonl").read_text().splitlines()]
            if bad_rows.left_out
            else []
        )
        expected = [example for _, example in written if example is not None]
        assert found == expected, (kind, form, seed)
        assert len(found) + sum(one["rows"] for one in reported) == len(written), (kind, form, seed)
        assert all(str(folder / kind) in one["where"] for one in reported)
        store = ArrowRows(
            folder / kind, cache=folder / "cache", bad_rows=BadRows("skip", folder / "streamed")
        )
        assert [tuple(one[:4]) for one in store.take(range(len(store)))] == expected
        assert (folder / "theirs.txt").read_text() == "theirs"
        count.update(rows=len(written), damaged=len(written) - len(expected), read=len(found))
    assert count["damaged"] > 10, count
