import gzip
import json
import os
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedtrain.data.read.bad_rows import BadRows
from embedtrain.data.read.sources import read_examples
from embedtrain.data.stores import counting
from embedtrain.data.stores.streaming import InTurn, StreamedRows
from embedtrain.types import InputError

KINDS = (".jsonl", ".ndjson", ".jsonl.gz", ".parquet")


@pytest.fixture(autouse=True)
def few_rows_a_segment(monkeypatch):
    """Segments of ten rows, so that small files have several."""
    for name in ("counting", "shards"):
        monkeypatch.setattr(f"embedtrain.data.stores.{name}.MARK", 10)


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
    """Shards of 25, 0, 8 and 31 rows."""
    (tmp_path / "rows").mkdir()
    for shard, count in enumerate((25, 0, 8, 31)):
        if count or request.param != ".parquet":
            write(tmp_path / "rows" / f"part-{shard}{request.param}", rows_of(shard, count))
    return tmp_path / "rows"


def stream(source, tmp_path, **options):
    return StreamedRows(source, cache=tmp_path / "cache", **options)


def everything(store):
    return store.take(range(len(store)))


def test_a_stream_has_the_rows_of_memory_in_the_same_order(folder, tmp_path):
    store = stream(folder, tmp_path, prompts={"query": "ask: "})
    assert (len(store), store.task) == (64, "rows")
    assert list(everything(store).values()) == read_examples(folder, prompts={"query": "ask: "})


@pytest.mark.parametrize("interleave", [1, 3, 4, 99])
def test_an_epoch_has_every_row_once_and_other_neighbours_in_the_next(folder, tmp_path, interleave):
    store = stream(folder, tmp_path, interleave=interleave)
    orders = [store.order(5, epoch)(np.arange(64)) for epoch in range(8)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(64))
    assert len({tuple(order.tolist()) for order in orders}) > 1
    np.testing.assert_array_equal(store.order(5, 0)(np.array([[3, 60]])), orders[0][[[3, 60]]])


def test_rows_taken_in_any_jumps_are_the_same(folder, tmp_path):
    store, examples = stream(folder, tmp_path), read_examples(folder)
    draw = np.random.default_rng(0)
    for _ in range(30):
        numbers = draw.integers(0, 64, draw.integers(0, 6)).tolist()
        assert store.take(numbers) == {number: examples[number] for number in numbers}


def test_an_epoch_opens_each_segment_once(tmp_path, monkeypatch):
    for shard in range(5):
        write(tmp_path / f"{shard}.jsonl.gz", rows_of(shard, 40))
    store = pickle.loads(pickle.dumps(stream(tmp_path, tmp_path, interleave=2)))
    opened = []
    real = counting.lines
    monkeypatch.setattr(
        "embedtrain.data.stores.shards.lines", lambda *a, **o: opened.append(a) or real(*a, **o)
    )
    order = store.order(1, 1)(np.arange(200))
    for window in range(0, 200, 20):
        store.take(order[window : window + 20].tolist())
    assert len(opened) == 5
    assert len(store._cursors) <= 4


def test_positions_take_one_row_of_each_lane_in_turn():
    sizes = np.array([4, 2, 3, 1])
    order = InTurn(np.cumsum(sizes) - sizes, sizes, 2, (0,))(np.arange(10))
    owner = np.repeat(np.arange(4), sizes)[order]
    assert sorted(order.tolist()) == list(range(10))
    assert all(one != other for one, other in zip(owner[:8:2], owner[1:8:2], strict=True))
    for segment in range(4):  # each from front to end
        assert (np.diff(order[owner == segment]) == 1).all()


def test_a_hundred_million_rows_are_ordered_with_memory_for_segments_only():
    sizes = np.full(10_000, 10_000)
    order = InTurn(np.cumsum(sizes) - sizes, sizes, 4, (0, 0))
    kept = sum(array.nbytes for lane in order._lanes for array in lane)
    assert kept <= 16 * 10_000
    found = order(np.arange(50_000_000, 50_040_000))
    assert len(np.unique(found)) == 40_000


def test_files_are_counted_once(folder, tmp_path, monkeypatch):
    first = stream(folder, tmp_path)
    for name in ("count_lines", "_count_parquet"):
        monkeypatch.setattr(counting, name, lambda *_, **__: pytest.fail("counted again"))
    second = stream(folder, tmp_path)
    assert everything(second) == everything(first)


def test_a_damaged_or_outdated_count_is_made_again(tmp_path):
    path = write(tmp_path / "a.jsonl", rows_of(0, 12))
    stream(path, tmp_path)
    for file in (tmp_path / "cache").glob("*.np*"):
        file.write_bytes(file.read_bytes()[:50])
    assert len(everything(stream(path, tmp_path))) == 12
    write(path, rows_of(0, 30))
    assert len(everything(stream(path, tmp_path))) == 30
    assert len(list((tmp_path / "cache").glob("*.npz"))) == 1


def test_blank_lines_a_byte_order_mark_and_crlf_are_as_in_memory(tmp_path):
    lines = [json.dumps(row).encode() for row in rows_of(0, 40)]
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf\r\n" + b"\r\n \r\n".join(lines))
    store = stream(path, tmp_path)
    assert list(everything(store).values()) == read_examples(path)
    assert store.take([39])[39].where == f"{path}:80"


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_changes_while_it_is_read_is_named(tmp_path, kind):
    path = write(tmp_path / f"a{kind}", rows_of(0, 30))
    store = stream(path, tmp_path, bad_rows=BadRows("skip", tmp_path))
    store.take([0])
    write(path, rows_of(1, 31))
    with pytest.raises(InputError, match=r"a\..*: was changed while the run was reading it"):
        store.take([1])


def test_a_file_that_vanishes_is_named_or_reported_as_all_its_rows(tmp_path):
    for shard in (0, 1):
        write(tmp_path / f"{shard}.jsonl", rows_of(shard, 15))
    bad_rows = BadRows("skip", tmp_path / "out")
    strict, store = stream(tmp_path, tmp_path), stream(tmp_path, tmp_path, bad_rows=bad_rows)
    (tmp_path / "1.jsonl").unlink()
    with pytest.raises(InputError, match=r"1\.jsonl: was there when the run began and is gone"):
        strict.take([20])
    assert list(everything(store)) == list(range(15))
    assert bad_rows.summary()[:2] == (15, 1)


@pytest.mark.parametrize("kind", [".jsonl", ".jsonl.gz"])
def test_the_same_bad_rows_are_left_out_as_in_memory_and_reported_once(tmp_path, kind):
    rows = [json.dumps({"id": n // 2, **row}).encode() for n, row in enumerate(rows_of(0, 40))]
    rows[0], rows[11], rows[25] = b"{", b'{"query": "", "positive": "p"}', b"\xff" * 200
    path = tmp_path / f"a{kind}"
    text = b"\n".join(rows)
    path.write_bytes(gzip.compress(text)[:-9] if kind.endswith("gz") else text)
    memory, streamed = (BadRows("skip", tmp_path / name, max_line=150) for name in ("memory", "streamed"))
    examples = read_examples(path, bad_rows=memory)
    store = stream(path, tmp_path, bad_rows=streamed)
    for _ in range(2):
        assert list(everything(store).values()) == examples
    reports = [
        sorted((tmp_path / name / "bad_rows.jsonl").read_text().splitlines())
        for name in ("memory", "streamed")
    ]
    assert reports[0] == reports[1]
    assert len(examples) + streamed.summary().rows == len(store)


def test_a_repeated_id_in_another_shard_names_both_places(tmp_path):
    for shard in (0, 1):
        write(
            tmp_path / f"{shard}.jsonl",
            [{"id": f"{n + 19 * shard}", **row} for n, row in enumerate(rows_of(shard, 20))],
        )
    with pytest.raises(InputError, match=r"1\.jsonl:1: has the id '19' of .*0\.jsonl:20"):
        stream(tmp_path, tmp_path)
    store = stream(tmp_path, tmp_path, bad_rows=BadRows("skip", tmp_path / "out"))
    assert sorted(set(range(40)) - set(everything(store))) == [20]


def test_parquet_ids_are_compared_too(tmp_path):
    path = write(tmp_path / "a.parquet", [{"id": n % 20, **row} for n, row in enumerate(rows_of(0, 21))])
    with pytest.raises(InputError, match=r"a\.parquet: row 21: has the id 0 of .*a\.parquet: row 1\."):
        stream(path, tmp_path)


def test_ids_are_compared_in_parts_when_there_are_many(monkeypatch):
    draw = np.random.default_rng(0)
    table = np.zeros(3000, dtype=counting.ID)
    table["hash"] = draw.integers(0, 2000, 3000)
    table["row"], table["number"] = np.arange(3000), np.arange(3000) + 1
    first, expected = {}, {}
    for number, key in enumerate(table["hash"].tolist()):
        where = (number // 1000, number % 1000)
        if key in first:
            expected[where] = first[key]
        first.setdefault(key, (where[0], where[1] + 1))
    tables = []
    for shard in range(3):
        own = table[shard * 1000 : (shard + 1) * 1000].copy()
        own["row"], own["number"] = np.arange(1000), np.arange(1000) + 1
        tables.append(own)
    assert counting.repeated(tables) == expected
    monkeypatch.setattr(counting, "PART", 500)
    assert counting.repeated(tables) == expected


def test_the_first_row_decides_whether_rows_have_scores_wherever_one_begins(tmp_path):
    rows = [{**row, "score": 1.0} if n != 33 else row for n, row in enumerate(rows_of(0, 40))]
    path = write(tmp_path / "a.jsonl", rows)
    store = stream(path, tmp_path, bad_rows=BadRows("skip", tmp_path / "out"))
    assert store.take([33, 34]).keys() == {34}
    with pytest.raises(InputError, match=r"a\.jsonl:1 has a score and .*a\.jsonl:34 has none"):
        stream(path, tmp_path).take([33])


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
    assert list(store.take([25, 45, 3, 21])) == [3, 45]
    assert list(everything(store)) == [*range(20), *range(40, 60)]
    assert bad_rows.summary()[:2] == (20, 1)
    assert f"{path}: not a readable parquet file after row 20" in bad_rows.summary().first[0]
    assert len(read_examples(path, bad_rows=BadRows("skip", tmp_path / "memory"))) == 40


def test_workers_do_not_share_open_files(tmp_path):
    path = write(tmp_path / "a.jsonl", rows_of(0, 3000))
    store = stream(path, tmp_path)
    store.take([5])
    child = os.fork()
    if child == 0:
        os._exit(0 if len(store.take(range(6, 3000))) == 2994 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert store.take([6])[6].query == "q0-6 é"
    assert everything(pickle.loads(pickle.dumps(store))) == everything(store)


def test_patterns_lists_and_splits_are_found(tmp_path):
    for name in ("train-0", "train-1", "test-0"):
        write(tmp_path / f"{name}.jsonl", rows_of(0, 3))
    assert len(stream(tmp_path, tmp_path, split="train")) == 6
    assert len(stream(tmp_path / "t*-0.jsonl", tmp_path, task="t")) == 6
    assert len(stream([tmp_path / "test-0.jsonl", tmp_path / "train-1.jsonl"], tmp_path, task="t")) == 6


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("none.jsonl", {}, "no such file or folder"),
        ("none*.jsonl", {"task": "t"}, "no file has such a name"),
        ("a*.jsonl", {}, "several files need the name of their task"),
        ("b.json", {}, r"b\.json: cannot be streamed: its name must end in \.jsonl, \.jsonl\.gz"),
        ("a.jsonl", {"rows": 3}, "rows is for hub datasets only"),
        ("a.jsonl", {"interleave": 0}, "interleave must be 1 or more"),
        ("empty.jsonl", {}, r"empty\.jsonl: holds no rows"),
        ("saved", {}, "a saved dataset cannot be streamed"),
    ],
)
def test_what_cannot_be_streamed_is_named(tmp_path, source, options, message):
    write(tmp_path / "a.jsonl", rows_of(0, 3))
    (tmp_path / "b.json").write_text("[]")
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_text("{}")
    with pytest.raises(InputError, match=message):
        stream(tmp_path / source, tmp_path, **options)
    with pytest.raises(InputError, match="is named twice"):
        stream([tmp_path / "a.jsonl"] * 2, tmp_path, task="t")


@pytest.fixture
def hub(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def load(name, config, *, split, streaming):
        assert (name, config, split, streaming) == ("owner/name", None, "train", True)
        return datasets.Dataset.from_list(rows_of(0, 20)).to_iterable_dataset(num_shards=4)

    monkeypatch.setattr(datasets, "load_dataset", load)
    return datasets


def test_a_hub_dataset_is_streamed_when_its_length_is_known(hub, tmp_path):
    with pytest.raises(InputError, match="does not say how many rows it has"):
        stream("owner/name", tmp_path)
    store = stream("owner/name", tmp_path, rows=20)
    assert [example.query for example in everything(store).values()] == [
        row["query"] for row in rows_of(0, 20)
    ]
    assert store.take([7])[7].where == "owner/name: row 8"
    bad_rows = BadRows("skip", tmp_path / "out")
    longer = stream("owner/name", tmp_path, rows=25, bad_rows=bad_rows)
    assert len(everything(longer)) == 20
    assert bad_rows.summary()[:2] == (5, 1)


def test_parts_of_a_hub_dataset_are_permuted_where_their_lengths_are_known(hub, tmp_path, monkeypatch):
    info = hub.SplitInfo(name="train", num_examples=20, shard_lengths=[5, 5, 5, 5])
    whole = hub.load_dataset("owner/name", None, split="train", streaming=True)
    whole.info.splits = hub.SplitDict({"train": info})
    monkeypatch.setattr(hub, "load_dataset", lambda *_, **__: whole)
    store = stream("owner/name", tmp_path, interleave=1)
    order = store.order(0, 0)(np.arange(20)).tolist()
    assert sorted(order) == list(range(20))
    assert order != list(range(20))
    assert [example.query for example in everything(store).values()] == [
        row["query"] for row in rows_of(0, 20)
    ]
