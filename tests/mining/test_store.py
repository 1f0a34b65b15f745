"""Vectors on disk: the same again, of nothing but the texts and the teacher they were made for."""

import os
import time

import numpy as np
import pytest

from embedtrain.mining import blocks
from embedtrain.mining.blocks import DamagedError, block_key, read_block, write_block
from embedtrain.mining.store import VectorStore
from embedtrain.mining.teacher import load_teacher
from embedtrain.types import InputError

TEXTS = [f"text number {number}" for number in range(25)]


def store(folder, teacher, texts=TEXTS, role="document", **settings):
    return VectorStore(folder, teacher, texts, role, **{"part": 10} | settings)


def test_vectors_come_back_in_order_and_are_made_once(tmp_path, teacher):
    assert store(tmp_path, teacher).fill() == 25
    expected = teacher.embed(TEXTS, "document").astype(np.float16)
    teacher.asked.clear()
    again = store(tmp_path, teacher)
    assert again.fill() == 0
    assert teacher.asked == []
    kept = again.open()
    assert np.array_equal(kept.take(np.arange(25)), expected)
    assert np.array_equal(kept.take(np.array([24, 0, 11, 0])), expected[[24, 0, 11, 0]])
    found = [(first, block.numpy()) for first, block in kept.blocks(17, 4)]
    assert [first for first, _ in found] == [0, 10]
    assert np.array_equal(np.concatenate([block for _, block in found]), expected[:17].astype(np.float32))


@pytest.mark.parametrize(
    "change",
    [
        {"identity": "cd" * 20},  # other weights, prompts, length, dim or precision
        {"role": "query"},
        {"prompts": ["find: "] * 25},
        {"texts": [*TEXTS[:-1], "another text"]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_nothing_stale_is_found(tmp_path, make_teacher, change):
    store(tmp_path, make_teacher()).fill()
    teacher = make_teacher(change.pop("identity", "ab" * 20))
    other = store(tmp_path, teacher, **change)
    assert other.fill() == (5 if "texts" in change else 25), "parts of equal texts are shared"
    texts, role = change.get("texts", TEXTS), change.get("role", "document")
    expected = teacher.embed(texts, role, change.get("prompts")).astype(np.float16)
    assert np.array_equal(other.open().take(np.arange(25)), expected)


def test_shards_divide_the_parts_and_missing_ones_are_named(tmp_path, teacher):
    assert store(tmp_path, teacher).fill(shard=1, shards=2) == 10
    with pytest.raises(InputError, match="2 of 3 parts of the document vectors are missing"):
        store(tmp_path, teacher).open()
    assert store(tmp_path, teacher).fill(shard=0, shards=2) == 15
    assert sorted(teacher.asked) == sorted(TEXTS)
    store(tmp_path, teacher).open()


@pytest.mark.parametrize("damage", ["flip", "cut", "other"])
def test_a_damaged_part_is_said_and_made_again(tmp_path, teacher, caplog, damage):
    first = store(tmp_path, teacher)
    first.fill()
    path = sorted(first.folder.glob("*.vectors"))[1]
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-3] ^= 1
    path.write_bytes({"flip": content, "cut": content[:-5], "other": b"x" * len(content)}[damage])
    teacher.asked.clear()
    assert store(tmp_path, teacher).fill() == 10
    assert teacher.asked == TEXTS[10:20]
    assert "is damaged: its 10 texts are encoded again" in caplog.text
    expected = teacher.embed(TEXTS, "document").astype(np.float16)
    assert np.array_equal(store(tmp_path, teacher).open().take(np.arange(25)), expected)


def test_a_block_is_whole_or_absent(tmp_path, monkeypatch):
    path, key, array = tmp_path / "a.vectors", block_key("a", 1), np.arange(6, dtype=np.float32)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(InputError, match="the disk is full"):
            write_block(path, key, array)
    assert list(tmp_path.iterdir()) == []
    assert read_block(path, key, (6,), np.dtype(np.float32)) is None
    write_block(path, key, array)
    assert np.array_equal(read_block(path, key, (6,), np.dtype(np.float32)), array)
    with pytest.raises(DamagedError):
        read_block(path, block_key("b", 1), (6,), np.dtype(np.float32))


def test_half_written_files_of_killed_processes_go_in_time(tmp_path, teacher):
    kept = store(tmp_path, teacher)
    kept.fill()
    old, young = kept.folder / ".a.tmp", kept.folder / ".b.tmp"
    for path, age in ((old, 2 * blocks.ABANDONED_SECONDS), (young, 0)):
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age, time.time() - age))
    kept.open()
    assert not old.exists()
    assert young.exists()


@pytest.mark.parametrize(
    "change",
    [{"prompts": {"query": "q: "}}, {"max_length": 8}, {"dim": 8}, {"layer": 2}, {"dtype": "bfloat16"}],
    ids=lambda change: next(iter(change)),
)
def test_whatever_decides_a_vector_is_in_the_identity_of_a_teacher(tiny_bert, change):
    whole = load_teacher(tiny_bert)
    assert load_teacher(tiny_bert).identity == whole.identity
    other = load_teacher(tiny_bert, **change)
    assert other.identity != whole.identity
    assert other.embed(["a cat"], "query").shape == (1, other.width)


def test_changed_weights_change_the_identity(tiny_bert, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    changed = shutil.copytree(tiny_bert, tmp_path / "changed")
    state = load_file(changed / "model.safetensors")
    name = next(name for name in state if name.endswith("query.weight"))
    state[name][0, 0] += 0.01
    save_file(state, changed / "model.safetensors", metadata={"format": "pt"})
    assert load_teacher(changed).identity != load_teacher(tiny_bert).identity


def test_a_device_that_is_not_there(tiny_bert):
    with pytest.raises(InputError, match="device=nonsense is not there"):
        load_teacher(tiny_bert, device="nonsense")
