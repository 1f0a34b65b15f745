"""2,300 damaged data sets: each ends in a clean result, and no row is lost without a word."""

import gzip
import json
import random
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedtrain.data.read.bad_rows import BadRows
from embedtrain.data.read.sources import read_examples
from embedtrain.data.stores.arrow import ArrowRows
from embedtrain.types import InputError

CASES, BATCH = 2000, 100
ARRAYS = 300
SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz", ".parquet")
MAX_LINE = 2000
VALUES = (
    None, 3, 2.5, True, "", "  ", [], ["p", 7], {}, {"a": [1]}, "q\ud800", "q\x00", float("nan"), [[["p"]]],
)  # fmt: skip
LINES = (
    b'{"query": "q", "positive": "p", "score": %s}' % (b"9" * 400),
    b'{"query": "q", "positive": "p", "score": 1e999}',
    b'{"query": "q", "positive": "p", "score": -Infinity}',
    b'{"query": "q", "positive": "p", "n": %s}' % (b"9" * 1500),
    b'{"query": "q", "query": "r", "positive": "p"}',
    b'{"query": "q", "positive": "p", "teacher_scores": [NaN]}',
    b'{"query": "q", "positive": "p", "teacher_scores": [1, 2, 3]}',
    b'{"query": "q", "positive": "p", "x": %s}' % (b"[" * 1900),
    b'{"query": "q", "positive": %s}' % (b'{"a":' * 300 + b"1" + b"}" * 300),
    b'{"query": "%s", "positive": "p"}' % (b"x" * 3000),
    b'{"query": "q", "negative_%s": "n", "positive": "p"}' % (b"9" * 500),
    b'{"query": "q", "positive": "\\ud800"}',
    b'{"query": "q", "positive": "p"} {"query": "q", "positive": "p"}',
    b'[{"query": "q", "positive": "p"}]',
    b'"query"',
    b"null",
    b"\x00" * 40,
    b"{\xff\xfe\x00}\x00",
    b"",
    b" \t ",
    b" " * 3000,
)


def good_rows(draw):
    kind, id_type = draw.choice(("plain", "scored", "ids", "lists")), draw.choice((int, str))
    for number in range(draw.randint(1, 8)):
        row = {"query": f"q{number} é", "positive": f"p{number}"}
        if kind == "scored":
            row["score"] = number / 2
        if kind == "ids":
            row["id"] = id_type(number)
        if kind == "lists":
            row |= {"negatives": [f"n{number}"], "teacher_scores": [0.5, 0.25]}
        yield row


def damaged_rows(draw):
    rows = list(good_rows(draw))
    for _ in range(draw.randint(0, 2)):
        row = draw.choice(rows)
        name = draw.choice((*row, "score", "id", "negatives", "teacher_scores", "task", "instruction"))
        match draw.randrange(4):
            case 0:
                row.pop(name, None)
            case 1:
                row[name] = draw.choice(VALUES)
            case 2:
                row["id"] = draw.choice(rows).get("id", 1)
            case 3:
                rows.append(dict(row))
    return rows


def damaged_lines(draw):
    """Bytes of a file of lines."""
    lines = [
        json.dumps(row, ensure_ascii=draw.random() < 0.5).encode(errors="surrogatepass")
        for row in damaged_rows(draw)
    ]
    for _ in range(draw.randint(0, 2)):
        lines.insert(draw.randrange(len(lines) + 1), draw.choice(LINES))
    text = draw.choice((b"\n", b"\n", b"\r\n", b"\n\n")).join(lines) + draw.choice((b"", b"\n"))
    return draw.choice((b"", b"", b"\xef\xbb\xbf")) + text


def damaged_array(draw):
    """Bytes of a .json file: an array, sometimes with things in it that are no rows, or lines."""
    if draw.random() < 0.2:
        return damaged_lines(draw)
    rows = damaged_rows(draw)
    for _ in range(draw.randint(0, 2)):
        rows.insert(draw.randrange(len(rows) + 1), draw.choice(VALUES))
    text = json.dumps(rows, ensure_ascii=draw.random() < 0.5, indent=draw.choice((None, 1)))
    return draw.choice((b"", b"\xef\xbb\xbf", b"\n ")) + text.encode(errors="surrogatepass")


def damaged_bytes(draw, data):
    data = bytearray(data)
    for _ in range(draw.randint(0, 3)):
        at = draw.randrange(len(data)) if data else 0
        match draw.randrange(4):
            case 0:
                data[at : at + 1] = bytes([draw.randrange(256)])
            case 1:
                del data[at : at + draw.randint(1, 30)]
            case 2:
                data[at:at] = draw.randbytes(draw.randint(1, 5))
            case 3 if draw.random() < 0.3:
                del data[at:]
    return bytes(data)


def write(path, draw):
    if path.suffix == ".parquet":
        rows = list(good_rows(draw))
        bad = draw.randrange(len(rows))
        rows[bad] |= {"query": draw.choice(("", None, "q")), "positive": draw.choice(("p", " "))}
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=3, write_page_checksum=True)
        path.write_bytes(damaged_bytes(draw, path.read_bytes()) if draw.random() < 0.5 else path.read_bytes())
    elif path.suffix == ".gz":
        text = damaged_array(draw) if ".json" in path.suffixes else damaged_lines(draw)
        packed = gzip.compress(text[: len(text) // 2]) + gzip.compress(text[len(text) // 2 :])
        path.write_bytes(damaged_bytes(draw, packed))
    else:
        text = damaged_array(draw) if path.suffix == ".json" else damaged_lines(draw)
        path.write_bytes(damaged_bytes(draw, text) if draw.random() < 0.7 else text)
    return path


def outcome(read):
    """(examples, None), or (None, what stopped it)."""
    try:
        return read(), None
    except InputError as error:
        return None, str(error)


def check_array(folder, seed):
    """One damaged .json file, which is read whole; gives what became of it."""
    draw = random.Random(seed)
    folder.mkdir()
    path = write(folder / draw.choice(("rows.json", "rows.json.gz")), draw)
    policy = draw.choice(("error", "skip", "quarantine"))
    bad_rows = BadRows(policy, folder / "out", max_line=MAX_LINE)
    examples, error = outcome(lambda: read_examples(path, bad_rows=bad_rows))
    if policy == "error":
        assert not error or re.search(r"rows\.json(\.gz)?(:\d+|: |)", error), error
        return "stopped" if error else "whole"
    reported = read_report(folder / "out")
    assert bad_rows.left_out == sum(rows for rows, _ in reported.values())
    if error is not None:
        assert re.search(rf"none of its {bad_rows.left_out} rows can be used|holds no rows", error)
    array = None if path.suffix == ".gz" else array_in(path)
    whole = all(where in reason for where, (_, reason) in reported.items())  # no damage to the file itself
    if array is not None and whole:
        assert array == len(examples or ()) + bad_rows.left_out
    return "left out" if reported else "whole"


def array_in(path):
    """Number of entries of the array in a file, counted by other means; None where there is none."""
    try:
        found = json.loads(path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode(errors="surrogatepass"))
    except ValueError:
        return None
    return len(found) if isinstance(found, list) else None


def rows_in(path):
    """Rows of a file of lines, counted by other means."""
    data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    return sum(bool(line.strip()) or len(line) > MAX_LINE for line in data.split(b"\n"))


def check(folder, seed):
    """One damaged data set in memory and streamed; gives what became of it."""
    draw = random.Random(seed)
    (folder / "rows").mkdir(parents=True)
    files = [write(folder / "rows" / f"{n}{draw.choice(SUFFIXES)}", draw) for n in range(draw.randint(1, 2))]
    policy = draw.choice(("error", "skip", "quarantine"))
    memory, streamed = (BadRows(policy, folder / name, max_line=MAX_LINE) for name in ("memory", "streamed"))

    def stream():
        store = ArrowRows(folder / "rows", cache=folder / "cache", bad_rows=streamed)
        return store.take(range(len(store)))

    examples, error = outcome(lambda: read_examples(folder / "rows", bad_rows=memory))
    again, other = outcome(stream)
    assert (examples, error) == (again, other)
    if policy == "error":
        place = r"rows/\d\.\w+(\.gz)?(:\d+|: rows? \d+|: .*after (line|row) \d+)|holds no rows"
        assert error is None or re.search(place, error), error
        return "stopped" if error else "whole"
    reports = [read_report(folder / name) for name in ("memory", "streamed")]
    assert reports[0] == reports[1]
    reported = sum(rows for rows, _ in reports[0].values())
    assert memory.summary().rows == streamed.summary().rows == reported
    for where, (_, reason) in reports[0].items():
        assert any(where.startswith(str(file)) for file in files)
        assert any(str(file) in reason for file in files)
    if error is not None:
        assert re.search(rf"none of its {reported} rows can be used" if reported else "holds no rows", error)
    used = len(examples or ())
    if all(file.suffix in (".jsonl", ".ndjson") for file in files):
        assert sum(map(rows_in, files)) == used + reported
    return "left out" if reported else "whole"


def read_report(folder):
    report = folder / "bad_rows.jsonl"
    entries = [json.loads(line) for line in report.read_bytes().splitlines()] if report.exists() else []
    found = {entry["where"]: (entry["rows"], entry["reason"]) for entry in entries}
    assert len(found) == len(entries)
    return found


def all_checked(check, seeds, folder):
    """What became of the data set of each seed."""
    ends = []
    for seed in seeds:
        try:
            ends.append(check(folder / str(seed), seed))
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
    return ends


@pytest.mark.parametrize("first", range(0, CASES, BATCH))
def test_damage_ends_in_an_error_with_its_place_or_in_a_report(tmp_path, first):
    assert {"stopped", "left out", "whole"} <= set(all_checked(check, range(first, first + BATCH), tmp_path))


def test_damaged_arrays_end_in_an_error_with_their_place_or_in_a_report(tmp_path):
    ends = all_checked(check_array, range(ARRAYS), tmp_path)
    assert all(ends.count(end) >= ARRAYS // 20 for end in ("stopped", "left out", "whole")), ends
