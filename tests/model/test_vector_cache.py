import errno
from pathlib import Path

import numpy as np
import pytest

from embedtrain.model.vector_cache import HEADER_BYTES, VectorCache
from embedtrain.types import InputError

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


def test_a_damaged_record_is_refused_by_name(tmp_path):
    cache = open_cache(tmp_path)
    cache.add(KEYS[:2], vectors(2))
    path = only_file(cache)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    reader = open_cache(tmp_path)
    assert reader.find(KEYS[:1])[0].all()
    with pytest.raises(InputError, match=rf"{path.name} is damaged \(record 1\): delete this file"):
        reader.find(KEYS[1:2])


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

        def write(self, data):
            self.file.write(data[:10])
            self.file.flush()
            raise OSError(errno.ENOSPC, "No space left on device")

    def open_full(self, mode="r"):
        file = opened(self, mode)
        return Full(file) if mode == "ab" else file

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(InputError, match=r"cannot write to the cache .*: the disk is full"):
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
