import bz2
import gzip
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedtrain.files.records import parsed
from embedtrain.files.rows import raw_rows, read_rows
from embedtrain.types import InputError

ROWS = [{"query": f"q{i}", "positive": f"p{i} é"} for i in range(5)]


def write_lines(path, rows=ROWS, opener=open):
    with opener(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return path


def contents(path, **options):
    return [row for _, row in read_rows(path, **options)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json", "a.jsonl.gz", "a.json.gz"])
def test_lines_are_read_from_every_spelling(tmp_path, name):
    path = write_lines(tmp_path / name, opener=gzip.open if name.endswith("gz") else open)
    assert contents(path) == ROWS
    assert [where for where, _ in read_rows(path)] == [f"{path}:{n}" for n in range(1, 6)]


@pytest.mark.parametrize("opener", [open, gzip.open])
def test_json_array_is_read(tmp_path, opener):
    path = tmp_path / ("a.json" if opener is open else "a.json.gz")
    with opener(path, "wt") as file:
        file.write(json.dumps(ROWS, indent=2))
    assert list(read_rows(path))[2] == (f"{path}: row 3", ROWS[2])


@pytest.mark.parametrize("packing", ["gz", "bz2", "xz", "zst"])
def test_packed_files_are_read_and_their_damage_is_named(tmp_path, packing):
    path = tmp_path / f"a.jsonl.{packing}"
    text = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    if packing == "zst":
        with pa.OSFile(str(path), "wb") as file, pa.CompressedOutputStream(file, "zstd") as out:
            out.write(text)
    else:
        path.write_bytes({"gz": gzip, "bz2": bz2, "xz": lzma}[packing].compress(text))
    assert contents(path) == ROWS
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(InputError, match=rf"a\.jsonl\.{packing}: (damaged|cannot be read)"):
        contents(path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv", "a.json"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-8-sig"])
def test_files_with_a_byte_order_mark_are_read(tmp_path, name, encoding):
    cut = {"csv": ",", "tsv": "\t"}.get(name[2:])
    lines = [json.dumps(row, ensure_ascii=False) for row in ROWS]
    if name == "a.json":
        lines = [json.dumps(ROWS, indent=1, ensure_ascii=False)]
    if cut:
        lines = [cut.join(row) for row in [ROWS[0], *(row.values() for row in ROWS)]]
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (tmp_path / name).write_bytes((mark + "\r\n".join(lines)).encode(encoding))
    assert contents(tmp_path / name) == ROWS


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    "value",
    [
        {"version": "1.0", "data": ROWS},
        {name: [row[name] for row in ROWS] for name in ROWS[0]},
        {name: {str(place): row[name] for place, row in enumerate(ROWS)} for name in ROWS[0]},
    ],
)
def test_rows_inside_one_object_are_read(tmp_path, value, indent):
    (tmp_path / "a.json").write_text(json.dumps(value, indent=indent))
    assert contents(tmp_path / "a.json") == ROWS


@pytest.mark.parametrize("row", [{"query": ["i", "q"], "pos": ["p", "r"]}, {"query": "q", "data": "p"}])
def test_an_object_that_is_a_row_stays_one(tmp_path, row):
    (tmp_path / "a.json").write_text(json.dumps(row))
    assert contents(tmp_path / "a.json") == [row]


def test_parquet_of_the_hubs_own_conversion_is_read(tmp_path):
    for split in ("train", "test"):
        place = tmp_path / "default" / split / "0000.parquet"
        place.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(ROWS if split == "train" else ROWS[:1]), place)
    assert contents(tmp_path) == ROWS


def test_parquet_is_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(ROWS).to_parquet(tmp_path / "a.parquet")
    assert list(read_rows(tmp_path / "a.parquet"))[4] == (f"{tmp_path / 'a.parquet'}: row 5", ROWS[4])


def test_saved_dataset_and_its_splits_are_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_list(ROWS)
    data.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=data, test=data.select([1])).save_to_disk(tmp_path / "two")
    assert contents(tmp_path / "one") == ROWS
    assert contents(tmp_path / "two", split="test") == ROWS[1:2]
    assert contents(tmp_path / "two") == ROWS, "train, as of a data set of the hub"
    datasets.DatasetDict(dev=data, test=data).save_to_disk(tmp_path / "three")
    with pytest.raises(InputError, match="holds the splits dev, test; say which one"):
        read_rows(tmp_path / "three")
    with pytest.raises(InputError, match=r"has no split 'tset', only train, test. Did you mean 'test'"):
        read_rows(tmp_path / "two", split="tset")


def test_damaged_saved_dataset_is_named(tmp_path):
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(InputError, match=r"cannot be read .* Save the data set again"):
        read_rows(tmp_path)


def test_folder_of_files_is_joined_in_name_order(tmp_path):
    write_lines(tmp_path / "part-2.jsonl", ROWS[3:])
    write_lines(tmp_path / "part-1.jsonl", ROWS[:3])
    assert contents(tmp_path) == ROWS


@pytest.mark.parametrize(
    "layout", ["train{}.jsonl", "train-0000{}-of-00002.jsonl", "data/train-{}.jsonl", "train/{}.jsonl"]
)
def test_split_of_a_folder_is_found_by_file_or_folder_name(tmp_path, layout):
    for folder in ("data", "train", "test"):
        (tmp_path / folder).mkdir()
    write_lines(tmp_path / layout.format("" if layout == "train{}.jsonl" else 1))
    write_lines(
        tmp_path / layout.replace("train", "test").format("" if layout == "train{}.jsonl" else 1), ROWS[:1]
    )
    assert contents(tmp_path, split="train") == ROWS
    assert contents(tmp_path, split="test") == ROWS[:1]
    assert contents(tmp_path) == ROWS


def test_blank_lines_and_byte_order_mark_are_skipped_and_lines_still_counted(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n  \n{"a": 2}')
    assert list(read_rows(path)) == [(f"{path}:1", {"a": 1}), (f"{path}:4", {"a": 2})]


def test_parquet_that_is_none_is_named(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match=r"a\.parquet: not a readable parquet file after row 0"):
        contents(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"query": "q", "positive"', r":2: not valid JSON .* at character \d+\): '\{\"query"),
        (b"[1, 2]", r":2: expected a JSON object like .* found an array"),
        (b'"text"', r":2: expected a JSON object .* found a string"),
        (b"null", r":2: expected a JSON object .* found null"),
        (b"7", r":2: expected a JSON object .* found the value 7"),
        (b'{"query": "\xe9"}', r":2: byte 12 of the line is not UTF-8. Save the file as UTF-8"),
    ],
)
def test_bad_line_is_named_with_what_was_found(tmp_path, line, message):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"query": "q"}\n' + line + b"\n")
    with pytest.raises(InputError, match=message):
        contents(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'[{"a": 1},\n{"a": }]', r"a\.json:2: not valid JSON"),
        (b"[1]", "row 1: expected a JSON object"),
        (b'["\xff"]', "byte 3 is not UTF-8"),
    ],
)
def test_bad_array_is_named(tmp_path, text, message):
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(InputError, match=message):
        contents(path)


def test_truncated_gzip_names_the_last_good_line(tmp_path):
    path = write_lines(
        tmp_path / "a.jsonl.gz", [{"query": str(hash(str(i)))} for i in range(5000)], gzip.open
    )
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    read = []
    with pytest.raises(InputError, match=r"cut short after line \d+ ") as error:
        read.extend(read_rows(path))
    assert read  # rows before the break came through
    assert f"after line {len(read)} " in str(error.value)
    path.write_bytes(b"plain text")
    with pytest.raises(InputError, match="damaged or cut short after line 0"):
        contents(path)


def test_missing_path_names_the_nearest_sibling_or_what_is_there(tmp_path):
    write_lines(tmp_path / "train.jsonl")
    with pytest.raises(
        InputError, match=r"trian\.jsonl: no such file or folder. Did you mean .*train\.jsonl"
    ):
        read_rows(tmp_path / "trian.jsonl")
    with pytest.raises(InputError, match=r"x\.jsonl: no such file or folder; .* holds train\.jsonl"):
        read_rows(tmp_path / "nowhere" / "deep" / "x.jsonl")


def test_unknown_ending_and_empty_folder_say_what_would_do(tmp_path):
    (tmp_path / "a.xlsx").write_text("a,b")
    with pytest.raises(InputError, match=r"Its name must end in \.jsonl"):
        read_rows(tmp_path / "a.xlsx")
    with pytest.raises(InputError, match="no rows here"):
        read_rows(tmp_path)


def test_texts_and_markdown_are_a_row_each(tmp_path):
    (tmp_path / "deep/.hidden").mkdir(parents=True)
    (tmp_path / "b.md").write_text("# Cats\n\nThey sleep é.\n", "utf-8")
    (tmp_path / "deep/a.txt").write_bytes("\ufeffplain".encode())
    (tmp_path / "deep/utf16.txt").write_bytes("wide".encode("utf-16"))
    (tmp_path / "deep/train.txt.gz").write_bytes(gzip.compress(b"packed"))
    for blank in ("deep/blank.txt", "deep/.hidden/not.txt"):
        (tmp_path / blank).write_text(" \n", "utf-8")
    texts = ["# Cats\n\nThey sleep é.\n", "plain", "packed", "wide"]
    assert contents(tmp_path) == [{"text": text} for text in texts]
    assert list(read_rows(tmp_path / "b.md")) == [(f"{tmp_path}/b.md:1", {"text": texts[0]})]
    write_lines(tmp_path / "rows.jsonl")
    assert contents(tmp_path) == ROWS, "a README beside rows is none of them"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\xff", "byte 2 is not UTF-8"),
        (b"x" * 33, "more than the 32 bytes of a row"),
        (gzip.compress(b"whole", mtime=0)[:-9], "cannot be read"),
    ],
)
def test_a_text_that_cannot_be_read_is_a_bad_row(tmp_path, content, message):
    path = tmp_path / ("a.txt.gz" if content[:2] == b"\x1f\x8b" else "a.txt")
    path.write_bytes(content)
    (row,) = raw_rows(path, max_line=32)
    with pytest.raises(InputError, match=message):
        parsed(row)
