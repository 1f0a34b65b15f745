"""Small files that unfold to huge content end with one line within seconds, in bounded memory."""

import gzip
import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedtrain.files.rows import read_rows

SPACE = 1 << 30  # bytes that reading any of them may take, libraries included
MOST = "open('/proc/self/status').read().split('VmHWM:')[1].split()[0]"  # KiB, of this process alone
READ = f"""
import json, sys
from embedtrain.files.rows import raw_rows
path, rows, error = sys.argv[1], 0, ""
for raw in raw_rows(path):
    rows, error = rows + 1, str(raw.value) if isinstance(raw.value, Exception) else ""
print(json.dumps([rows, error, int({MOST}) << 10]))
"""
CALL = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
from embedtrain.cli.train import main
try:
    main()
finally:
    print(int({MOST}) << 10)
"""
MUCH = 64 << 20


def packed(*parts):
    return b"".join(gzip.compress(part, 6) for part in parts)


def a_line(path):
    path.write_bytes(packed(b'{"query": "') + packed(b"x" * MUCH) * 60)


def an_array(path):
    path.write_bytes(packed(b'[{"query": "q"},\n{"query": "') + packed(b"x" * MUCH) * 60)


def save(path, values):
    options = {"compression": "zstd", "write_statistics": False, "store_schema": False}
    pq.write_table(pa.table({"query": values}), path, **options)


def a_page(path):
    value = pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), pa.array(["x" * (5 * MUCH)]))
    save(path, value)


def a_dictionary(path):
    value = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), pa.array(["x" * (MUCH >> 3)]))
    pq.write_table(
        pa.table({"query": value}), path, compression="zstd", write_statistics=False, store_schema=False
    )


def a_list(path):
    values = pa.ListArray.from_arrays([0, 40 << 20], np.zeros(40 << 20, dtype=np.int8))
    save(path, values)


@pytest.mark.parametrize(
    ("bomb", "name"),
    [
        (a_line, "rows.jsonl.gz"),
        (an_array, "rows.json.gz"),
        (a_line, "rows.csv.gz"),
        (a_page, "rows.parquet"),
        (a_dictionary, "rows.parquet"),
        (a_list, "rows.parquet"),
    ],
)
def test_rows_that_unpack_to_too_much_are_one_line(bomb, name, tmp_path):
    bomb(tmp_path / name)
    assert (tmp_path / name).stat().st_size < 10 << 20
    called = [sys.executable, "-c", READ, str(tmp_path / name)]
    rows, error, most = json.loads(subprocess.run(called, check=True, capture_output=True, timeout=60).stdout)
    assert str(tmp_path / name) in error
    assert "unpack" in error
    assert "\n" not in error
    assert rows < 100
    assert most < SPACE


ALIASES = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
DEEP = "a: " + "[" * 50_000


@pytest.mark.parametrize("text", [ALIASES, DEEP, "a: &a\n  b: *a\n"], ids=["aliases", "deep", "loop"])
def test_a_recipe_of_others_that_unfolds_is_one_line(text, tmp_path):
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "mine.yaml").write_text(text)
    called = [sys.executable, "-c", CALL, "--config-dir", str(tmp_path), "loss=mine", "name=x"]
    done = subprocess.run(called, check=False, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path}/loss/mine.yaml ")
    assert int(done.stdout) < SPACE


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_arrays_are_read_the_same_in_parts(size, tmp_path, monkeypatch):
    monkeypatch.setattr("embedtrain.files.records.CHUNK", size)
    rows = [{"query": "é\n[" * number, "n": number} for number in range(50)]
    for indent in (None, 2):
        (tmp_path / "a.json").write_text(json.dumps(rows, indent=indent, ensure_ascii=False) + "\n", "utf-8")
        assert [row for _, row in read_rows(tmp_path / "a.json")] == rows


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('[{"a": 1},\n{"a": }]', ":2: .*character 7"),
        ('[{"a": 1}\n{"a": 2}]', ":2: .*',' or ']' at character 1"),
        ('[{"a": 1}] x', ":1: .*Extra data at character 12"),
        ('[{"a": 1},\n\n {"b"', ":3: .*"),
        ("[1 ", ":1: .*',' or ']'"),
    ],
)
def test_the_place_of_a_mistake_in_an_array_is_named(text, place, size, tmp_path, monkeypatch):
    monkeypatch.setattr("embedtrain.files.records.CHUNK", size)
    from embedtrain.files.records import array_rows

    (tmp_path / "a.json").write_text(text)
    error = list(array_rows(tmp_path / "a.json"))[-1].value
    with pytest.raises(Exception, match=f"a.json{place}"):
        raise error
