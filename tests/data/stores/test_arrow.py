import gzip
import json
import multiprocessing
import os
import pickle
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedtrain.data.read import sources
from embedtrain.data.read.bad_rows import BadRows
from embedtrain.data.read.sources import Example, Prompts, read_examples
from embedtrain.data.stores import arrow
from embedtrain.data.stores.arrow import ArrowRows
from embedtrain.types import InputError

KINDS = (".jsonl", ".ndjson", ".jsonl.gz", ".json", ".parquet")


@pytest.fixture(autouse=True)
def few_rows_a_batch(monkeypatch):
    """Batches of ten rows, so that small files have several."""
    monkeypatch.setattr(arrow, "BATCH", 10)


def rows_of(shard, count):
    return [{"query": f"q{shard}-{n} é", "positive": f"p{n}"} for n in range(count)]


def write(path, rows):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=7)
    else:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (gzip.open if path.suffix == ".gz" else open)(path, "wb").write(text.encode())
    return path


@pytest.fixture(params=KINDS)
def folder(request, tmp_path):
    """Files of 25, 0, 8 and 31 rows."""
    (tmp_path / "rows").mkdir()
    for shard, count in enumerate((25, 0, 8, 31)):
        if count or request.param != ".parquet":
            write(tmp_path / "rows" / f"part-{shard}{request.param}", rows_of(shard, count))
    return tmp_path / "rows"


def stream(source, tmp_path, **options):
    return ArrowRows(source, cache=tmp_path / "cache", **options)


def everything(store):
    return store.take(range(len(store)))


def report(folder):
    return sorted((folder / "bad_rows.jsonl").read_text().splitlines())


@pytest.fixture
def no_reading(monkeypatch):
    """Call it, and from then on a source that is read fails the test."""
    return lambda: monkeypatch.setattr(arrow, "_write", lambda *_: pytest.fail("read again"))


def test_the_rows_are_those_of_memory_in_the_same_order(folder, tmp_path):
    options = {"prompts": {"query": "ask: "}}
    store, examples = stream(folder, tmp_path, **options), read_examples(folder, **options)
    assert (len(store), store.task) == (64, "rows")
    assert everything(store) == examples
    draw = np.random.default_rng(0)
    for _ in range(30):
        numbers = draw.integers(0, 64, draw.integers(0, 6)).tolist()
        assert store.take(numbers) == [examples[number] for number in numbers]


def test_every_field_of_a_row_survives(tmp_path):
    rows = [
        {"query": "q", "positives": ["p", "r"], "negatives": ["n"], "teacher_scores": [0.1, 1e-300, -3]},
        {"query": "q", "positive": "p", "instruction": "Find \U0001f600.", "task": "other"},
        {"query": "q", "positive": "p", "negative_2": "b", "negative_1": "a"},
    ]
    path = write(tmp_path / "a.jsonl", rows)
    assert everything(stream(path, tmp_path)) == read_examples(path)
    scored = write(tmp_path / "b.jsonl", [{"query": "q", "positive": "p", "score": 0.1 + 0.2}] * 3)
    assert everything(stream(scored, tmp_path)) == read_examples(scored)


def test_rows_may_hold_lists_of_numbers_for_texts(tmp_path):
    rows = [Example((0.5, n), ((1.0, 2.0), (3.0,)), (), None, "t", f"f:{n}", Prompts()) for n in range(25)]
    assert arrow._write_batches(tmp_path / "rows.arrow", iter(rows), [], arrow.Fingerprint()) == 25
    store = ArrowRows.__new__(ArrowRows)
    store.__setstate__({"task": "t", "_folder": tmp_path})
    assert everything(store) == rows


def test_a_source_is_read_once(folder, tmp_path, no_reading):
    first = stream(folder, tmp_path)
    no_reading()
    second = stream(folder, tmp_path)
    assert everything(second) == everything(first)
    assert everything(pickle.loads(pickle.dumps(second))) == everything(first)


def test_processes_that_start_at_once_read_a_source_once(tmp_path):
    path = write(tmp_path / "a.jsonl", rows_of(0, 3000))
    real = arrow._write

    def start():
        def noted(*arguments):
            with (tmp_path / "reads").open("a") as file:
                file.write("x")
            real(*arguments)

        arrow._write = noted
        assert len(everything(stream(path, tmp_path))) == 3000

    workers = [multiprocessing.get_context("fork").Process(target=start) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert (tmp_path / "reads").read_text() == "x"


def test_other_ways_to_read_a_source_have_files_of_their_own(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"query": "q", "positive": "p", "other": "o"}] * 3)
    for options in (
        {},
        {"columns": {"query": "other"}},
        {"task": "t"},
        {"prompts": {"query": "x"}},
        {"rows": 2},
    ):
        found = everything(stream(path, tmp_path, **options))
        rows = options.pop("rows", None)
        assert found == read_examples(path, **options)[:rows]


@pytest.mark.parametrize("name", [arrow.ROWS, arrow.BAD])
def test_damaged_missing_or_outdated_rows_are_read_again(tmp_path, name):
    path = write(tmp_path / "a.jsonl", rows_of(0, 12))
    stream(path, tmp_path)
    (file,) = (tmp_path / "cache").glob(f"*/{arrow.ROWS}")
    file.write_bytes(file.read_bytes()[:50])
    assert len(everything(stream(path, tmp_path))) == 12
    (file.parent / name).unlink()
    assert len(everything(stream(path, tmp_path))) == 12
    write(path, rows_of(0, 30))
    assert len(everything(stream(path, tmp_path))) == 30
    assert len(list((tmp_path / "cache").glob("*/"))) == 1


def test_a_start_that_is_stopped_leaves_nothing(tmp_path, monkeypatch):
    path = write(tmp_path / "a.jsonl", rows_of(0, 30))
    monkeypatch.setattr(sources, "raw_rows", lambda *_, **__: (1 // 0 for _ in range(1)))
    with pytest.raises(ZeroDivisionError):
        stream(path, tmp_path)
    assert not list((tmp_path / "cache").glob("*/"))
    monkeypatch.undo()
    assert len(everything(stream(path, tmp_path))) == 30


def test_blank_lines_a_byte_order_mark_and_crlf_are_as_in_memory(tmp_path):
    lines = [json.dumps(row).encode() for row in rows_of(0, 40)]
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf\r\n" + b"\r\n \r\n".join(lines))
    store = stream(path, tmp_path)
    assert everything(store) == read_examples(path)
    assert store.take([39])[0].where == f"{path}:80"


def test_a_file_that_changes_while_it_is_read_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "a.jsonl", rows_of(0, 30))
    real = sources.raw_rows

    def changing(*arguments, **options):
        yield from real(*arguments, **options)
        write(path, rows_of(1, 31))

    monkeypatch.setattr(sources, "raw_rows", changing)
    with pytest.raises(InputError, match=r"a\.jsonl: was changed while it was read"):
        stream(path, tmp_path)


def test_a_run_goes_on_when_its_source_changes_or_vanishes_and_the_next_start_says_so(tmp_path):
    path = write(tmp_path / "a.jsonl", rows_of(0, 30))
    store = stream(path, tmp_path)
    before = everything(store)
    write(path, rows_of(1, 31))
    assert everything(stream(path, tmp_path))[0].query == "q1-0 é"
    assert everything(store) == before
    path.unlink()
    with pytest.raises(InputError, match="no such file or folder"):
        stream(path, tmp_path)
    assert everything(store) == before


def test_the_same_bad_rows_are_left_out_as_in_memory_and_reported_once_by_every_run(tmp_path, no_reading):
    rows = [json.dumps({"id": n // 2, **row}).encode() for n, row in enumerate(rows_of(0, 40))]
    rows[0], rows[11], rows[25] = b"{", b'{"query": "", "positive": "p"}', b"\xff" * 200
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n".join(rows))[:-9])
    write(tmp_path / "b.parquet", [{"query": "q", "positive": text, "n": 2.5} for text in ("p", " ", "r")])
    sources = [path, tmp_path / "b.parquet"]
    memory = BadRows("quarantine", tmp_path / "memory", max_line=150)
    examples = [row for one in sources for row in read_examples(one, task="t", bad_rows=memory)]
    for run in ("first", "first", "second"):
        bad_rows = BadRows("quarantine", tmp_path / run, max_line=150)
        store = stream(sources, tmp_path, task="t", bad_rows=bad_rows)
        assert everything(store) == examples
        assert bad_rows.left_out == memory.left_out == bad_rows.summary().rows
        assert report(tmp_path / run) == report(tmp_path / "memory")
        kept = [(tmp_path / name / "quarantine.jsonl").read_bytes() for name in (run, "memory")]
        assert kept[0] == kept[1]
        no_reading()
    with pytest.raises(InputError, match=r"a\.jsonl\.gz:1: not valid JSON"):
        stream(sources, tmp_path, task="t", bad_rows=BadRows(max_line=150))


def test_the_policy_that_stops_names_the_first_bad_row_and_keeps_nothing(tmp_path):
    path = write(tmp_path / "a.jsonl", [*rows_of(0, 20), {"query": "q"}])
    with pytest.raises(InputError, match=r"a\.jsonl:21: field 'positive' is missing"):
        stream(path, tmp_path)
    assert not list((tmp_path / "cache").glob("*/"))


def test_a_repeated_id_in_another_file_names_both_places(tmp_path):
    for shard in (0, 1):
        rows = [{"id": f"{n + 19 * shard}", **row} for n, row in enumerate(rows_of(shard, 20))]
        write(tmp_path / f"{shard}.jsonl", rows)
    with pytest.raises(InputError, match=r"1\.jsonl:1: has the id '19' of .*0\.jsonl:20"):
        stream(tmp_path, tmp_path)
    store = stream(tmp_path, tmp_path, bad_rows=BadRows("skip", tmp_path / "out"))
    assert len(store) == 39
    assert f"{tmp_path}/1.jsonl:1" not in {example.where for example in everything(store)}


def test_ids_are_remembered_on_disk_as_a_dict_would(tmp_path):
    draw, places = np.random.default_rng(0), arrow.Places(tmp_path / "ids")
    expected = {}
    for number, key in enumerate(map(repr, draw.integers(0, 300, 1000).tolist())):
        assert places.setdefault(key, f"f:{number}") == expected.setdefault(key, f"f:{number}")
    places.close()
    assert not list(tmp_path.iterdir())


def test_the_first_row_decides_whether_rows_have_scores(tmp_path):
    rows = [{**row, "score": 1.0} if n != 33 else row for n, row in enumerate(rows_of(0, 40))]
    path = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(InputError, match=r"a\.jsonl:34 is a pair .* and .*a\.jsonl:1 is a scored pair"):
        stream(path, tmp_path)
    assert len(stream(path, tmp_path, bad_rows=BadRows("skip", tmp_path / "out"))) == 39


def test_a_damaged_part_of_a_parquet_file_is_one_report_for_its_rows(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.Table.from_pylist(rows_of(0, 60)),
        path,
        row_group_size=20,
        write_page_checksum=True,
        use_dictionary=False,
    )
    whole = bytearray(path.read_bytes())
    at = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset + 60
    whole[at] ^= 255
    path.write_bytes(whole)
    bad_rows = BadRows("skip", tmp_path / "out")
    store = stream(path, tmp_path, bad_rows=bad_rows)
    assert [row.query for row in store.take([25, 3])] == ["q0-45 é", "q0-3 é"]
    assert bad_rows.summary()[:2] == (20, 1)
    assert f"{path}: not a readable parquet file after row 20" in bad_rows.summary().first[0]
    assert everything(store) == read_examples(path, bad_rows=BadRows("skip", tmp_path / "memory"))


def test_forked_workers_read_beside_their_parent(tmp_path):
    store = stream(write(tmp_path / "a.jsonl", rows_of(0, 3000)), tmp_path)
    store.take([5])
    child = os.fork()
    if child == 0:
        os._exit(0 if len(store.take(range(6, 3000))) == 2994 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert store.take([6])[0].query == "q0-6 é"


def test_patterns_lists_splits_and_saved_datasets_are_read(tmp_path):
    for name in ("train-0", "train-1", "test-0"):
        write(tmp_path / f"{name}.jsonl", rows_of(0, 3))
    assert len(stream(tmp_path, tmp_path, split="train")) == 6
    assert len(stream(tmp_path / "t*-0.jsonl", tmp_path, task="t")) == 6
    assert len(stream([tmp_path / "test-0.jsonl", tmp_path / "train-1.jsonl"], tmp_path, task="t")) == 6
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(rows_of(0, 20)).save_to_disk(tmp_path / "saved")
    assert everything(stream(tmp_path / "saved", tmp_path)) == read_examples(tmp_path / "saved")


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("none.jsonl", {}, "no such file or folder"),
        ("none*.jsonl", {"task": "t"}, "no file has such a name"),
        ("a*.jsonl", {}, "several files need the name of their task"),
        ("a.xlsx", {}, r"a\.xlsx: what is inside\? Its name must end in \.jsonl, \.jsonl\.gz"),
        ("empty.jsonl", {}, r"empty\.jsonl: holds no rows"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, source, options, message):
    write(tmp_path / "a.jsonl", rows_of(0, 3))
    (tmp_path / "a.xlsx").write_text("q,p\n")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match=message):
        stream(tmp_path / source, tmp_path, **options)
    with pytest.raises(InputError, match="is named twice"):
        stream([tmp_path / "a.jsonl"] * 2, tmp_path, task="t")


def test_a_hub_dataset_is_fetched_once(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")

    def load(name, config, *, split, streaming):
        assert (name, config, split, streaming) == ("owner/name", None, "train", True)
        return datasets.Dataset.from_list(rows_of(0, 20)).to_iterable_dataset(num_shards=4)

    monkeypatch.setattr(datasets, "load_dataset", load)
    store = stream("owner/name", tmp_path)
    assert [row.query for row in everything(store)] == [row["query"] for row in rows_of(0, 20)]
    assert store.take([7])[0].where == "owner/name: row 8"
    assert [len(stream("owner/name", tmp_path, rows=count)) for count in (7, 25)] == [7, 20]
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("fetched again"))
    assert everything(stream("owner/name", tmp_path)) == everything(store)
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(pytest.fail.Exception):
        stream("owner/name", tmp_path)
