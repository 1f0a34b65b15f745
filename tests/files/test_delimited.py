"""CSV and TSV as spreadsheets, pandas and hands write them: no line is lost or misread without a word."""

import csv
import gzip
import io
import random

import pytest

from embedtrain.data.read.bad_rows import BadRows
from embedtrain.data.read.sources import read_examples
from embedtrain.files.rows import raw_rows, read_rows
from embedtrain.types import InputError


def contents(path):
    return [row for _, row in read_rows(path)]


@pytest.fixture
def skipped(tmp_path):
    """(text of a CSV file) -> its examples' queries, and the lines that the report of bad rows names."""

    def read(text):
        path = tmp_path / "a.csv"
        path.write_text(text)
        bad = BadRows("quarantine", tmp_path / "bad")
        examples = read_examples(path, bad_rows=bad)
        rows = [row for _, row in read_rows(tmp_path / "bad/bad_rows.jsonl")]
        assert sum(row["rows"] for row in rows) == bad.left_out == bad.summary().rows
        return [example.query for example in examples], [int(row["where"].split(":")[-1]) for row in rows]

    return read


LINES = [f'q{n},"p {n}"' for n in range(2, 12)]


@pytest.mark.parametrize("place", range(9))
def test_every_line_that_an_open_quote_swallows_is_reported(skipped, place):
    """To the end of the file, or to the next quote."""
    quoted = ["query,positive", *LINES]
    quoted[place + 1] = f'q{place + 2},"p {place + 2}'
    queries, bad = skipped("\n".join(quoted) + "\n")
    assert bad == [place + 2, place + 3]
    assert len(queries) == len(LINES) - 2

    plain = ["query,positive", *(line.replace('"', "") for line in LINES)]
    plain[place + 1] = f'q{place + 2},"p {place + 2}'
    if place:
        queries, more = skipped("\n".join(plain) + "\n")
        assert sorted({*bad, *more}) == list(range(place + 2, 12))
        assert len(queries) == place


def test_an_open_quote_is_an_error_with_its_line_and_reach(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('query,positive\na,b\nc,"d\n\ne,f\n')
    with pytest.raises(InputError, match=r"a.csv:3: 3 lines were read as one: .* Repair the quotes"):
        read_examples(path)


def test_lines_of_random_files_are_rows_or_reported(tmp_path):
    """Each line that is not blank is in a row or in the report, whatever quotes stand where."""
    draw, tried = random.Random(0), 0
    for number in range(300):
        cells = [draw.choice(["a", "b c", '"d"', '"e', 'f"', '"g,h"', "", '"i""j"']) for _ in range(16)]
        lines = [",".join(cells[2 * n : 2 * n + 2]) for n in range(8)]
        path = tmp_path / f"{number}.csv"
        path.write_text("query,positive\n" + "\n".join(lines) + "\n")
        raws = list(raw_rows(path))
        good = [raw for raw in raws if isinstance(raw.value, dict)]
        bad = {raw.number for raw in raws if isinstance(raw.value, InputError)}
        used = set()
        for raw in good:
            breaks = sum((value or "").count("\n") for value in raw.value.values())
            used |= set(range(raw.number, raw.number + breaks + 1))
        assert not used & bad
        written = {place for place, line in enumerate(lines, 2) if line.strip(",")}
        assert written <= used | bad, lines
        tried += len(bad)
    assert tried > 500


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz"])
@pytest.mark.parametrize("header", ["query positive query", "text text", "score query score"])
def test_a_name_that_is_there_twice_is_refused(tmp_path, name, header):
    separator = "\t" if name.endswith(".tsv") else ","
    text = "\n".join(separator.join(line.split()) for line in (header, "a b c"[: 2 * len(header.split())]))
    opener = gzip.open if name.endswith(".gz") else open
    with opener(tmp_path / name, "wt") as file:
        file.write(text)
    twice = max(header.split(), key=header.split().count)
    with pytest.raises(
        InputError, match=f"the first line names the column '{twice}' twice. Give each a name"
    ):
        contents(tmp_path / name)


def test_rows_of_equal_words_are_no_header(tmp_path):
    (tmp_path / "a.csv").write_text("cat,cat\ndog,bird\n")
    assert contents(tmp_path / "a.csv")[0] == {"column_1": "cat", "column_2": "cat"}


@pytest.mark.parametrize("sign", [";", ",", "\t", "|"])
def test_the_first_line_of_excel_names_the_separator(tmp_path, sign):
    stream = io.StringIO()
    rows = [("query", "positive"), ("a, b", "c; d"), ("e", "f\ng")]
    csv.writer(stream, delimiter=sign, lineterminator="\r\n").writerows(rows)
    (tmp_path / "a.csv").write_bytes(f"\ufeffsep={sign}\r\n{stream.getvalue()}".encode())
    raws = list(raw_rows(tmp_path / "a.csv"))
    assert [raw.value for raw in raws] == [
        {"query": "a, b", "positive": "c; d"},
        {"query": "e", "positive": "f\ng"},
    ]
    assert [raw.number for raw in raws] == [3, 4]


def test_the_index_of_pandas_is_no_query(tmp_path):
    """`DataFrame.to_csv` writes it under an empty name."""
    (tmp_path / "a.csv").write_text(",query,positive\n0,a cat,a dog\n1,a man,a tree\n")
    examples = read_examples(tmp_path / "a.csv")
    assert [(row.query, row.positives, row.negatives) for row in examples] == [
        ("a cat", ("a dog",), ()),
        ("a man", ("a tree",), ()),
    ]


def test_a_first_line_that_cannot_be_read_is_an_error(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"query,positi\xff\na,b\n")
    with pytest.raises(InputError, match=r"is not UTF-8. .* Nothing is read without the first line"):
        read_examples(tmp_path / "a.csv", bad_rows=BadRows("skip", tmp_path / "bad"))


@pytest.mark.parametrize("below", ["more/b.jsonl", "more/deep/b.csv", "train/b.jsonl"])
def test_rows_below_that_are_not_read_are_named(tmp_path, caplog, below):
    for name in ("a.jsonl", below):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('{"query": "a", "positive": "b"}\n')
    assert len(contents(tmp_path)) == 1
    assert f"not from {tmp_path / below}" in caplog.text
