import errno
import hashlib
import os
import time
from pathlib import Path

import numpy as np
import pytest
from small_runs import flip

from embedtrain.types import InputError
from embedtrain.vectors import records
from embedtrain.vectors.records import HEADER_BYTES, checksums, make_records, record_type
from embedtrain.vectors.store import VectorStore, key_of

IDENTITY = "0123456789" * 4
KEYS = [bytes([number]) * 16 for number in range(1, 8)]


def open_store(folder: Path, **changes: object) -> VectorStore:
    return VectorStore(folder, **{"identity": IDENTITY, "width": 3, "dtype": "float32"} | changes)


def vectors(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3)).astype(np.float32)


def only_file(store: VectorStore) -> Path:
    (path,) = store.folder.glob("*.vectors")
    return path


def test_what_was_added_is_there_at_once_and_for_the_next_process(tmp_path):
    store, values = open_store(tmp_path), vectors(3)
    store.add(KEYS[:2], values[:2])
    store.add(KEYS[2:3], values[2:])
    for reader in (store, open_store(tmp_path)):
        assert len(reader) == 3
        there, read = reader.find([KEYS[2], KEYS[5], KEYS[0]])
        assert there.tolist() == [True, False, True]
        assert np.array_equal(read, values[[2, 0]])


def test_ranks_write_files_of_their_own_and_see_each_others_vectors(tmp_path):
    first, second = open_store(tmp_path), open_store(tmp_path)
    values = vectors(4)
    first.add(KEYS[:2], values[:2])
    second.add(KEYS[1:4], values[1:])  # both had the second
    first.add(KEYS[4:5], vectors(1, seed=1))
    assert len(list(first.folder.glob("*.vectors"))) == 2
    there, read = first.find(KEYS[:4])
    assert there.all()
    assert np.array_equal(read, values)
    assert second.find(KEYS[4:5])[0].all()


def test_vectors_come_back_as_rounded(tmp_path):
    store, values = open_store(tmp_path, dtype="float16"), vectors(2)
    store.add(KEYS[:2], values)
    read = store.find(KEYS[:2])[1]
    assert read.dtype == np.float16
    assert np.array_equal(read, store.rounded(values))
    assert not np.array_equal(read.astype(np.float32), values)


@pytest.mark.parametrize("rest", [b"\x07" * 9, b"\0" * 32], ids=["half a record", "not yet written"])
def test_a_record_that_is_unfinished_is_not_read_and_spoils_nothing(tmp_path, rest):
    writer = open_store(tmp_path)
    writer.add(KEYS[:2], vectors(2))
    path = only_file(writer)
    whole = path.read_bytes()
    path.write_bytes(whole[: HEADER_BYTES + writer.record.itemsize] + rest)
    reader = open_store(tmp_path)
    assert reader.find(KEYS[:2])[0].tolist() == [True, False]
    reader.add(KEYS[2:3], vectors(1))
    assert open_store(tmp_path).find(KEYS[:3])[0].tolist() == [True, False, True]
    path.write_bytes(whole)
    assert reader.find(KEYS[:3])[0].all(), "its writer has finished it"


@pytest.mark.parametrize("field", ["key", "check", "vector"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_damaged_record_is_not_there_is_named_and_can_be_written_again(tmp_path, caplog, field, dtype):
    store, values = open_store(tmp_path, dtype=dtype), vectors(3)
    store.add(KEYS[:3], values)
    path, offset = only_file(store), store.record.fields[field][1]
    flip(path, HEADER_BYTES + store.record.itemsize + offset + (12 if field == "key" else 1))
    reader = open_store(tmp_path, dtype=dtype)
    there, read = reader.find(KEYS[:3])
    assert there.tolist() == [True, False, True]
    assert np.array_equal(read, reader.rounded(values[[0, 2]]))
    assert f"{path} is damaged (1 records, the first is 1)" in caplog.text
    reader.add(KEYS[1:2], values[1:2])
    caplog.clear()
    for again in (reader, open_store(tmp_path, dtype=dtype)):
        there, read = again.find(KEYS[:3])
        assert there.all()
        assert np.array_equal(read, reader.rounded(values))
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"ETVEC002" + b"x" * 200, "has another format"),
        (b"ETBLOCK1" + b"x" * 200, "has another format"),
        (b"ETVEC003" + b"x" * 200, "is damaged or of another model"),
    ],
)
def test_a_file_that_is_none_of_the_store_is_named_and_left_alone(tmp_path, caplog, content, reason):
    store = open_store(tmp_path)
    other = store.folder / "000000.vectors"
    other.write_bytes(content)
    reader = open_store(tmp_path)
    assert f"{other} {reason} and is not read: delete it if you can spare it" in caplog.text
    caplog.clear()
    reader.add(KEYS[:2], vectors(2))
    assert reader.find(KEYS[:2])[0].all()
    assert caplog.text == "", "once is enough"
    assert other.read_bytes() == content


@pytest.mark.parametrize("other", [{"identity": IDENTITY[:16] + "f" * 24}, {"width": 4}])
def test_vectors_of_another_model_are_never_served(tmp_path, other, caplog):
    first = open_store(tmp_path, **other)
    first.add(KEYS[:1], np.zeros((1, first.width), np.float32))
    store = open_store(tmp_path)
    assert not store.find(KEYS[:1])[0].any()
    assert "of another model" in caplog.text


def test_models_and_dtypes_share_a_folder_without_meeting(tmp_path):
    for changes in ({}, {"identity": "f" * 40}, {"dtype": "float16"}):
        store = open_store(tmp_path, **changes)
        assert len(store) == 0
        store.add(KEYS[:1], vectors(1))
        assert len(store) == 1


def test_a_checksum_sees_every_changed_bit_and_exchanged_coordinates():
    kind = record_type(4, np.dtype("float32"))
    record = make_records([KEYS[0]], np.random.default_rng(0).standard_normal((1, 4)), kind)
    bits = 8 * kind.itemsize
    raw = np.tile(np.frombuffer(record.tobytes(), np.uint8), (bits, 1))
    raw[np.arange(bits), np.arange(bits) // 8] ^= (1 << np.arange(bits) % 8).astype(np.uint8)
    changed = raw.reshape(-1).view(kind)
    assert (changed["check"] != checksums(changed)).all()
    assert record["check"] == checksums(record)
    for change in (record["vector"] * [-1, -1, 1, 1], record["vector"][:, ::-1]):
        other = record.copy()
        other["vector"] = change
        assert other["check"] != checksums(other)


def test_many_are_added_located_and_read_by_column(tmp_path):
    count = 20_000
    keys = [hashlib.blake2b(str(number).encode(), digest_size=16).digest() for number in range(count)]
    values = np.arange(count * 3, dtype=np.float32).reshape(count, 3)
    store = open_store(tmp_path)
    for start in range(0, count, 2_500):
        store.add(keys[start : start + 2_500], values[start : start + 2_500])
    wanted = np.random.default_rng(2).permutation(count)
    places = open_store(tmp_path).locate([keys[row] for row in wanted])
    assert (places >= 0).all()
    assert np.array_equal(store.read(places, slice(1, 3)), values[wanted, 1:])
    assert (store.locate([key[::-1] for key in keys[:100]]) == -1).all()
    assert len(store._index._runs) < 8


def test_keys_alike_in_their_first_half_are_different(tmp_path):
    store = open_store(tmp_path)
    first, second = b"a" * 8 + b"b" * 8, b"a" * 8 + b"c" * 8
    store.add([first], vectors(1))
    assert store.find([second, first])[0].tolist() == [False, True]


def test_a_key_is_equal_just_where_all_parts_are():
    parts = [("a", "b"), ("ab",), ("a, b",), ("a", "b", None), ("a", "b", "None"), ("a", 1), ("\ud800",)]
    assert len({key_of(*some) for some in parts}) == len(parts)
    assert key_of("a", None, "\ud800") == key_of("a", None, "\ud800")


def test_a_full_folder_loses_what_was_unused_the_longest_and_never_what_is_in_use(tmp_path, caplog):
    names = {name: name * 40 for name in "abc"}
    aside = tmp_path / "notes"
    aside.mkdir()
    (aside / "mine.vectors").write_text("not a store")
    os.utime(aside, (0, 0))
    for age, identity in enumerate(names.values()):
        open_store(tmp_path, identity=identity).add(KEYS[:2], vectors(2))
        for path in [*tmp_path.glob(f"{identity[:16]}*"), *tmp_path.glob(f"{identity[:16]}*/*")]:
            os.utime(path, (time.time() - 10_000 + 100 * age,) * 2)
    record = open_store(tmp_path).record.itemsize
    held = 3 * (HEADER_BYTES + 2 * record)
    os.utime(tmp_path / f"{names['b'][:16]}-float32")
    store = open_store(tmp_path, limit=held + record)
    assert store.make_room(1)
    assert len(list(tmp_path.iterdir())) == 5
    assert store.make_room(2)
    assert not (tmp_path / f"{names['a'][:16]}-float32").exists()
    assert "unused the longest" in caplog.text
    assert not store.make_room(10)  # b is in use
    assert {path.name[0] for path in tmp_path.iterdir()} == {"0", "b", "n"}
    assert not store.make_room(1_000)
    assert open_store(tmp_path).make_room(1_000)
    assert (aside / "mine.vectors").exists(), "what is no store stays"


def test_a_full_disk_is_named_and_loses_nothing(tmp_path, monkeypatch):
    store = open_store(tmp_path)
    store.add(KEYS[:1], vectors(1))
    write = records.make_records

    class Torn:
        def tobytes(self):
            with only_file(store).open("ab") as file:
                file.write(b"\x07" * 9)
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(records, "make_records", lambda *_: Torn())
    with pytest.raises(InputError, match=r"cannot write vectors to .*: the disk is full\. What was"):
        store.add(KEYS[1:3], vectors(2))
    monkeypatch.setattr(records, "make_records", write)
    assert store.find(KEYS[:1])[0].all()
    store.add(KEYS[1:3], vectors(2))
    for reader in (store, open_store(tmp_path)):
        assert reader.find(KEYS[:3])[0].all()


def test_wrong_settings_and_places_are_named(tmp_path):
    with pytest.raises(InputError, match="cache_dtype must be float16 or float32, got 'int8'"):
        open_store(tmp_path, dtype="int8")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=f"cannot make the vector store {tmp_path}/file"):
        open_store(tmp_path / "file")
