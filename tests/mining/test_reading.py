"""What is mined, read from files: sound ones, and a few hundred damaged ones."""

import json
import random
import re
from pathlib import Path

import pytest
from processes import module_at
from small_runs import write_rows

from embedtrain.data.read.bad_rows import BadRows
from embedtrain.mining.reading import Part, read_corpus, read_retrieval, read_source
from embedtrain.types import InputError


def write(path, *rows):
    return write_rows(path, rows)


def test_a_corpus_file(tmp_path, caplog):
    caplog.set_level("INFO")
    rows = [{"text": "a", "title": "t"}, {"text": "b"}, {"text": "b", "title": ""}, {"text": " "}]
    texts, part = read_corpus(write(tmp_path / "corpus.jsonl", *rows))
    assert texts == ["t a", "b"]
    assert part == Part(rows=4, used=3, left_out=0, without_text=1)
    assert "left out 1 documents without text" in caplog.text
    with pytest.raises(InputError, match=r"corpus.jsonl:1: field 'text' is missing; .* Did you mean 'txt'"):
        read_corpus(write(tmp_path / "corpus.jsonl", {"txt": "a"}))
    with pytest.raises(InputError, match="holds no documents"):
        read_corpus(write(tmp_path / "corpus.jsonl", {"text": ""}))


def test_a_retrieval_set_gives_a_row_for_each_judged_query(tmp_path):
    folder = tmp_path / "retrieval/r"
    write(folder / "corpus.jsonl", {"id": "1", "text": "a"}, {"id": 2, "text": "b"}, {"id": "3", "text": ""})
    write(folder / "queries.jsonl", {"id": "x", "text": "q"}, {"id": "y", "text": "p"})
    judged = [("x", "2", 2), ("x", "1", 0), ("x", "3", 1), ("y", "1", 0)]
    names = ("query_id", "corpus_id", "score")
    write(folder / "qrels.jsonl", *(dict(zip(names, row, strict=True)) for row in judged))
    reading = read_retrieval(folder)
    assert [(row.query, row.positives, row.task) for row in reading.examples] == [("q", ("b",), "r")]
    assert reading.corpus == ["a", "b"]
    assert reading.parts == {"corpus": Part(3, 2, 0, 1), "queries": Part(2, 2, 0), "qrels": Part(4, 4, 0)}
    other = read_retrieval(folder, corpus=write(tmp_path / "other.jsonl", {"text": "c"}))
    assert (other.corpus, other.parts["corpus"]) == (["c"], Part(1, 1, 0))
    write(folder / "qrels.jsonl", {"query_id": "x", "corpus_id": "9", "score": 1})
    with pytest.raises(InputError, match="no positives to mine beside"):
        read_retrieval(folder)
    write(folder / "qrels.jsonl", {"query_id": "x", "corpus_id": "1", "score": 0})
    with pytest.raises(InputError, match="no positives to mine beside"):
        read_retrieval(folder)


def reports(folder):
    file = folder / "bad_rows.jsonl"
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.exists() else []


def test_bad_rows_of_a_retrieval_set_are_reported_and_the_rest_is_mined(tmp_path):
    folder, out = tmp_path / "retrieval/r", tmp_path / "out"
    documents = [{"id": "1", "text": "a"}, {"id": "1", "text": "b"}, {"id": "2"}, {"id": True, "text": "c"}]
    write(folder / "corpus.jsonl", *documents, {"id": "3", "text": "d", "title": 7}, {"id": "4", "text": "e"})
    write(
        folder / "queries.jsonl", {"id": "x", "text": "q"}, {"id": "y", "text": " "}, {"id": "z", "text": "r"}
    )
    judged = [("x", "1", 1), ("x", "2", 1), ("y", "1", 1), ("z", "4", float("nan")), ("z", "4", 1)]
    names = ("query_id", "corpus_id", "score")
    write(folder / "qrels.jsonl", *(dict(zip(names, row, strict=True)) for row in judged))
    with pytest.raises(InputError, match=r"corpus.jsonl:2: has the id '1' of .*corpus.jsonl:1"):
        read_retrieval(folder)
    for _ in range(2):  # again is what a restart, a rank or a shard does
        reading = read_retrieval(folder, lambda: BadRows("quarantine", out))
        assert [(row.query, row.positives) for row in reading.examples] == [("q", ("a",)), ("r", ("e",))]
        assert reading.corpus == ["a", "e"]
        assert reading.parts == {"corpus": Part(6, 2, 4), "queries": Part(3, 2, 1), "qrels": Part(5, 2, 1, 2)}
        assert [Path(entry["where"]).name for entry in reports(out)] == [
            *(f"corpus.jsonl:{line}" for line in (2, 3, 4, 5)),
            "queries.jsonl:2",
            "qrels.jsonl:4",
        ]
    assert reading.left_out == len((out / "quarantine.jsonl").read_text("utf-8").splitlines()) == 6


DAMAGE = module_at(Path(__file__).parents[1] / "data/read/test_fuzz.py")  # what training data is tested with
SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz", ".json", ".json.gz", ".parquet")
PLACE = r"(rows|corpus)\.\w+(\.gz)?(:\d+|: .*(row|line) \d+|: none of its|: holds no|: byte)"


def damaged_files(draw, folder):
    """Rows of any format, and a corpus of lines or an array."""
    folder.mkdir()
    rows = DAMAGE.write(folder / f"rows{draw.choice(SUFFIXES)}", draw)
    corpus = DAMAGE.write(folder / f"corpus{draw.choice(('.jsonl', '.json'))}", draw)
    corpus.write_bytes(corpus.read_bytes().replace(b'"query"', b'"text"'))
    return rows, corpus


@pytest.mark.parametrize("first", range(0, 300, 50))
def test_damaged_rows_and_corpora_end_in_an_error_with_its_place_or_in_a_report(tmp_path, first):
    ends = []
    for seed in range(first, first + 50):
        draw, folder = random.Random(seed), tmp_path / str(seed)
        source, corpus = damaged_files(draw, folder)
        policy, named = draw.choice(("error", "skip", "quarantine")), draw.choice((corpus, None))
        reading, error = DAMAGE.outcome(
            lambda: read_source(source, lambda: BadRows(policy, folder / "out"), corpus=named)  # noqa: B023
        )
        if reading is None:
            assert re.search(PLACE, error), error
            ends.append("stopped" if policy == "error" else "nothing left")
            continue
        reported = reports(folder / "out")
        assert len({entry["where"] for entry in reported}) == len(reported)
        for name, part in reading.parts.items():
            assert part.rows == part.used + part.left_out + part.without_text
            there = [entry["rows"] for entry in reported if f"/{name}." in entry["where"]]
            assert part.left_out == sum(there), seed
        assert reading.parts["rows"].used == len(reading.examples)
        ends.append("left out" if reported else "whole")
    assert {"stopped", "left out", "whole"} <= set(ends)
