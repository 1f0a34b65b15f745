"""Small files that unfold to huge content end with one line within seconds, in bounded memory."""

import gzip
import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_runs import flip

from embedtrain.files.rows import raw_rows, read_rows

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


def a_late_page(path):
    """Its footer says that there is little in it; the page after many small ones says what there is."""
    values = pa.table({"query": [f"t{number}" for number in range(3000)] + ["x" * (5 * MUCH)]})
    options = {"compression": "zstd", "use_dictionary": False, "data_page_size": 1 << 10}
    pq.write_table(values, path, **options, write_batch_size=100, write_statistics=False, store_schema=False)
    said = pq.ParquetFile(path).metadata.row_group(0).column(0).total_uncompressed_size
    content = path.read_bytes()
    little = b"\x80" * (len(number_of(said)) - 1) + b"\x01"
    path.write_bytes(content.replace(number_of(said), little))


def number_of(value):
    """As Thrift writes it."""
    value, found = value << 1, bytearray()
    while value:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found[-1] &= 0x7F
    return bytes(found)


def a_prefix(path):
    """Values that are stored as what they begin like the one before."""
    one = pa.array(["x" * (MUCH >> 5)], pa.large_string())
    many = pa.DictionaryArray.from_arrays(pa.array([0] * 600, pa.int32()), one).cast(pa.large_string())
    encoded = {"use_dictionary": False, "column_encoding": {"query": "DELTA_BYTE_ARRAY"}}
    pq.write_table(pa.table({"query": many}), path, compression="zstd", write_statistics=False, **encoded)


@pytest.mark.parametrize(
    ("bomb", "name"),
    [
        (a_line, "rows.jsonl.gz"),
        (an_array, "rows.json.gz"),
        (a_line, "rows.csv.gz"),
        (a_page, "rows.parquet"),
        (a_dictionary, "rows.parquet"),
        (a_list, "rows.parquet"),
        (a_late_page, "rows.parquet"),
        pytest.param(a_prefix, "rows.parquet", marks=pytest.mark.slow),  # 1.2 GB to make it
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
    assert rows < 200
    assert most < SPACE


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("codec", ["zstd", "snappy", "none"])
def test_a_damaged_page_late_in_a_file_takes_the_rows_after_it_alone(codec, version, tmp_path):
    values, path = [f"text {number}" for number in range(4000)], tmp_path / "a.parquet"
    options = {"data_page_size": 1 << 10, "write_batch_size": 100, "use_dictionary": False}
    options |= {"write_page_checksum": True, "compression": codec, "data_page_version": version}
    pq.write_table(pa.table({"query": values}), path, **options)
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    flip(path, column.data_page_offset + column.total_compressed_size - 20)
    *whole, damage = raw_rows(path)
    assert [raw.value["query"] for raw in whole] == values[: len(whole)]
    assert len(whole) > 2000
    assert len(whole) + damage.rows == 4000
    assert str(damage.value).startswith(f"{path}: not a readable parquet file after row {len(whole)} (")


def test_rows_that_a_parquet_file_counts_and_does_not_have_are_damage(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"query": ["a"] * 700}), path, write_statistics=False, store_schema=False)
    content = path.read_bytes()
    footer = pq.ParquetFile(path).metadata.row_group(0).column(0).total_compressed_size
    path.write_bytes(content[:footer] + content[footer:].replace(number_of(700), number_of(900)))
    *whole, damage = raw_rows(path)
    assert (len(whole), damage.rows) in ((700, 200), (0, 900))
    assert f"{path}: not a readable parquet file after row {len(whole)}" in str(damage.value)


def test_pages_that_are_too_large_together_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("embedtrain.files.parquet.AT_ONCE", 1000)
    pq.write_table(pa.table({"query": ["a" * 600], "b": ["b" * 600]}), tmp_path / "a.parquet")
    (damage,) = raw_rows(tmp_path / "a.parquet")
    assert "bytes at once: write smaller ones" in str(damage.value)


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
