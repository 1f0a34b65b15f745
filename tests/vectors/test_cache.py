import errno
import hashlib
import os
import time
from pathlib import Path

import numpy as np
import pytest

from embedtrain.types import InputError
from embedtrain.vectors.cache import VectorCache
from embedtrain.vectors.file import HEADER_BYTES, checksums, make_records, record_type

IDENTITY = "0123456789" * 4
KEYS = [bytes([number]) * 16 for number in range(1, 8)]


def open_cache(folder: Path, **changes: object) -> VectorCache:
    return VectorCache(folder, **{"identity": IDENTITY, "width": 3, "dtype": "float32"} | changes)


def vectors(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3)).astype(np.float32)


def only_file(cache: VectorCache) -> Path:
    (path,) = cache.folder.glob("*.vectors")
    return path


def test_what_was_added_is_found_at_once_and_by_the_next_process(tmp_path):
    cache, kept = open_cache(tmp_path), vectors(3)
    cache.add(KEYS[:2], kept[:2])
    cache.add(KEYS[2:3], kept[2:])
    for reader in (cache, open_cache(tmp_path)):
        assert len(reader) == 3
        there, found = reader.find([KEYS[2], KEYS[5], KEYS[0]])
        assert there.tolist() == [True, False, True]
        assert np.array_equal(found, kept[[2, 0]])


def test_ranks_write_files_of_their_own_and_see_each_others_vectors(tmp_path):
    first, second = open_cache(tmp_path), open_cache(tmp_path)
    kept = vectors(4)
    first.add(KEYS[:2], kept[:2])
    second.add(KEYS[1:4], kept[1:])  # both had the second
    first.add(KEYS[4:5], vectors(1, seed=1))
    assert len(list(first.folder.glob("*.vectors"))) == 2
    there, found = first.find(KEYS[:4])
    assert there.all()
    assert np.array_equal(found, kept)
    assert second.find(KEYS[4:5])[0].all()


def test_vectors_come_back_as_rounded(tmp_path):
    cache, kept = open_cache(tmp_path, dtype="float16"), vectors(2)
    cache.add(KEYS[:2], kept)
    found = cache.find(KEYS[:2])[1]
    assert found.dtype == np.float16
    assert np.array_equal(found, cache.rounded(kept))
    assert not np.array_equal(found.astype(np.float32), kept)


def test_a_half_written_record_is_not_read_and_spoils_nothing(tmp_path):
    dying = open_cache(tmp_path)
    dying.add(KEYS[:2], vectors(2))
    with only_file(dying).open("ab") as file:
        file.write(b"\x07" * 9)
    reader = open_cache(tmp_path)
    assert len(reader) == 2
    reader.add(KEYS[2:3], vectors(1))
    assert open_cache(tmp_path).find(KEYS[:3])[0].all()


def test_a_record_that_another_process_has_yet_to_fill_is_taken_in_later(tmp_path):
    writer = open_cache(tmp_path)
    writer.add(KEYS[:2], vectors(2))
    path = only_file(writer)
    whole = path.read_bytes()
    size = writer.record.itemsize
    path.write_bytes(whole[: HEADER_BYTES + size] + b"\0" * size)
    reader = open_cache(tmp_path)
    assert reader.find(KEYS[:2])[0].tolist() == [True, False]
    path.write_bytes(whole)
    assert reader.find(KEYS[:2])[0].tolist() == [True, True]


def damage(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("field", ["key", "check", "vector"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_damaged_record_is_not_there_is_named_and_can_be_written_again(tmp_path, caplog, field, dtype):
    cache, kept = open_cache(tmp_path, dtype=dtype), vectors(3)
    cache.add(KEYS[:3], kept)
    path, offset = only_file(cache), cache.record.fields[field][1]
    damage(path, HEADER_BYTES + cache.record.itemsize + offset + (12 if field == "key" else 1))
    reader = open_cache(tmp_path, dtype=dtype)
    there, found = reader.find(KEYS[:3])
    assert there.tolist() == [True, False, True]
    assert np.array_equal(found, reader.rounded(kept[[0, 2]]))
    assert f"{path} is damaged (1 records, the first is 1)" in caplog.text
    reader.add(KEYS[1:2], kept[1:2])
    caplog.clear()
    for cache in (reader, open_cache(tmp_path, dtype=dtype)):
        there, found = cache.find(KEYS[:3])
        assert there.all()
        assert np.array_equal(found, reader.rounded(kept))
    assert caplog.text == ""


def test_a_file_that_starts_damaged_is_left_out_by_name(tmp_path, caplog):
    cache = open_cache(tmp_path)
    cache.add(KEYS[:2], vectors(2))
    damage(only_file(cache), 20)
    reader = open_cache(tmp_path)
    assert not reader.find(KEYS[:2])[0].any()
    assert f"{only_file(cache)} starts damaged and is not read: delete it" in caplog.text
    reader.add(KEYS[:2], vectors(2))
    assert open_cache(tmp_path).find(KEYS[:2])[0].all()


def test_a_checksum_sees_every_changed_bit():
    kind = record_type(4, np.dtype("float32"))
    record = make_records([KEYS[0]], np.random.default_rng(0).standard_normal((1, 4)), kind)
    bits = 8 * kind.itemsize
    raw = np.tile(np.frombuffer(record.tobytes(), np.uint8), (bits, 1))
    raw[np.arange(bits), np.arange(bits) // 8] ^= (1 << np.arange(bits) % 8).astype(np.uint8)
    changed = raw.reshape(-1).view(kind)
    assert (changed["check"] != checksums(changed)).all()
    assert record["check"] == checksums(record)


def test_two_top_bits_and_exchanged_coordinates_are_seen(tmp_path):
    kind = record_type(8, np.dtype("float32"))
    records = make_records([KEYS[0]], vectors(8)[:, :1].T, kind)
    for change in (np.array([-1, -1, 1, 1, 1, 1, 1, 1]), None):
        other = records.copy()
        other["vector"] = records["vector"] * change if change is not None else records["vector"][:, ::-1]
        assert other["check"] != checksums(other)


def test_many_are_added_found_and_read_by_column(tmp_path):
    count = 20_000
    numbers = np.random.default_rng(1).permutation(count)
    keys = [int(number).to_bytes(16, "big") + b"" for number in numbers + 1]  # alike in their first halves
    kept = np.arange(count * 3, dtype=np.float32).reshape(count, 3)
    cache = open_cache(tmp_path)
    some = [hashlib.blake2b(key, digest_size=16).digest() for key in keys]
    for start in range(0, count, 2_500):
        cache.add(some[start : start + 2_500], kept[start : start + 2_500])
    wanted = np.random.default_rng(2).permutation(count)
    places = open_cache(tmp_path).locate([some[row] for row in wanted])
    assert (places >= 0).all()
    assert np.array_equal(cache.read(places, slice(1, 3)), kept[wanted, 1:])
    assert (cache.locate(keys[:100]) == -1).all()
    assert len(cache._index._runs) < 8


def test_keys_alike_in_their_first_half_are_told_apart(tmp_path):
    cache = open_cache(tmp_path)
    first, second = b"a" * 8 + b"b" * 8, b"a" * 8 + b"c" * 8
    cache.add([first], vectors(1))
    assert cache.find([second, first])[0].tolist() == [False, True]


def test_a_full_folder_lets_go_of_what_was_unused_the_longest_and_never_of_what_is_in_use(tmp_path, caplog):
    names = {name: name * 40 for name in "abc"}
    for age, identity in enumerate(names.values()):
        open_cache(tmp_path, identity=identity).add(KEYS[:2], vectors(2))
        for path in [*tmp_path.glob(f"{identity[:16]}*"), *tmp_path.glob(f"{identity[:16]}*/*")]:
            os.utime(path, (time.time() - 10_000 + 100 * age,) * 2)
    record = open_cache(tmp_path).record.itemsize
    held = 3 * (HEADER_BYTES + 2 * record)
    os.utime(tmp_path / f"{names['b'][:16]}-float32")
    cache = open_cache(tmp_path, limit=held + record)
    assert cache.make_room(1)
    assert len(list(tmp_path.iterdir())) == 4
    assert cache.make_room(2)
    assert not (tmp_path / f"{names['a'][:16]}-float32").exists()
    assert "unused the longest" in caplog.text
    assert not cache.make_room(10)  # b is in use
    assert {path.name[0] for path in tmp_path.iterdir()} == {"0", "b"}
    assert not cache.make_room(1_000)
    assert open_cache(tmp_path).make_room(1_000)


@pytest.mark.parametrize("other", [{"identity": IDENTITY[:16] + "f" * 24}, {"width": 4}])
def test_the_file_of_another_model_is_refused_by_name(tmp_path, other):
    cache = open_cache(tmp_path, **other)
    cache.add(KEYS[:1], np.zeros((1, cache.record["vector"].shape[0]), np.float32))
    with pytest.raises(InputError, match=f"{only_file(cache).name} holds no vectors of this model: delete"):
        open_cache(tmp_path)


def test_models_and_dtypes_share_a_folder_without_meeting(tmp_path):
    for changes in ({}, {"identity": "f" * 40}, {"dtype": "float16"}):
        cache = open_cache(tmp_path, **changes)
        assert len(cache) == 0
        cache.add(KEYS[:1], vectors(1))
        assert len(cache) == 1


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    cache = open_cache(tmp_path)
    cache.add(KEYS[:1], vectors(1))
    path = only_file(cache)
    before, opened = path.read_bytes(), Path.open

    class Full:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def truncate(self, size):
            self.file.truncate(size)

        def write(self, data):
            self.file.write(data[:10])
            self.file.flush()
            raise OSError(errno.ENOSPC, "No space left on device")

    def open_full(self, mode="r"):
        file = opened(self, mode)
        return Full(file) if mode == "ab" else file

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(InputError, match=r"cannot write vectors to .*: the disk is full\. What was"):
        cache.add(KEYS[1:3], vectors(2))
    monkeypatch.undo()
    assert path.read_bytes() == before
    cache.add(KEYS[1:3], vectors(2))
    assert open_cache(tmp_path).find(KEYS[:3])[0].all()


def test_wrong_settings_and_places_are_named(tmp_path):
    with pytest.raises(InputError, match="cache_dtype must be float16 or float32, got 'int8'"):
        open_cache(tmp_path, dtype="int8")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=f"cannot make the cache {tmp_path}/file"):
        open_cache(tmp_path / "file")
