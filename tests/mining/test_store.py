"""Vectors of texts: the same again, of nothing but the texts and the teacher they were made for."""

import shutil

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from small_runs import flip

from embedtrain.mining.pipeline import TextVectors
from embedtrain.mining.teacher import load_teacher
from embedtrain.types import InputError
from embedtrain.vectors.store import VectorStore

TEXTS = [f"text number {number}" for number in range(25)]


def of(folder, teacher, texts=TEXTS, role="document", **settings):
    store = VectorStore(folder, identity=teacher.identity, width=teacher.width, dtype="float16")
    return TextVectors(store, teacher, texts, role, **{"part": 10} | settings)


def test_vectors_come_back_in_order_and_are_made_once(tmp_path, teacher):
    assert of(tmp_path, teacher).fill() == 25
    expected = teacher.embed(TEXTS, "document").astype(np.float16)
    teacher.asked.clear()
    again = of(tmp_path, teacher)
    assert again.fill() == 0
    assert teacher.asked == []
    rows = again.open()
    assert np.array_equal(rows.take(np.arange(25)), expected)
    assert np.array_equal(rows.take(np.array([24, 0, 11, 0])), expected[[24, 0, 11, 0]])
    blocks = [(first, block.numpy()) for first, block in rows.blocks(17, 4)]
    assert [first for first, _ in blocks] == [0, 4, 8, 12, 16]
    assert np.array_equal(np.concatenate([block for _, block in blocks]), expected[:17].astype(np.float32))


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
def test_nothing_stale_is_served(tmp_path, make_teacher, change):
    of(tmp_path, make_teacher()).fill()
    teacher = make_teacher(change.pop("identity", "ab" * 20))
    other = of(tmp_path, teacher, **change)
    assert other.fill() == (5 if "texts" in change else 25), "parts of equal texts are shared"
    texts, role = change.get("texts", TEXTS), change.get("role", "document")
    expected = teacher.embed(texts, role, change.get("prompts")).astype(np.float16)
    assert np.array_equal(other.open().take(np.arange(25)), expected)


def test_a_part_is_made_whole_and_of_its_own_texts_alone(tmp_path, teacher):
    """The last digits of a vector depend on the batch: what was mined before must not decide them."""
    of(tmp_path, teacher).fill()
    teacher.asked.clear()
    assert of(tmp_path, teacher, ["new", *TEXTS]).fill() == 26
    assert teacher.asked == ["new", *TEXTS]


def test_shards_divide_the_parts_and_missing_ones_are_named(tmp_path, teacher):
    assert of(tmp_path, teacher).fill(shard=1, shards=2) == 10
    with pytest.raises(InputError, match="2 of 3 parts of the document vectors are missing"):
        of(tmp_path, teacher).open()
    assert of(tmp_path, teacher).fill(shard=0, shards=2) == 15
    assert sorted(teacher.asked) == sorted(TEXTS)
    of(tmp_path, teacher).open()


@pytest.mark.parametrize(("damage", "lost"), [("flip", slice(10, 20)), ("cut", slice(20, 25))])
def test_a_damaged_part_is_made_again(tmp_path, teacher, caplog, damage, lost):
    first = of(tmp_path, teacher)
    first.fill()
    (path,) = first.store.folder.glob("*.vectors")
    if damage == "flip":
        flip(path, -7 * first.store.record.itemsize + 30)  # of text 18
    else:
        path.write_bytes(path.read_bytes()[:-5])
    teacher.asked.clear()
    assert of(tmp_path, teacher).fill() == len(TEXTS[lost])
    assert teacher.asked == TEXTS[lost]
    assert ("is damaged (1 records, the first is 18)" in caplog.text) == (damage == "flip")
    expected = teacher.embed(TEXTS, "document").astype(np.float16)
    assert np.array_equal(of(tmp_path, teacher).open().take(np.arange(25)), expected)


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
    changed = shutil.copytree(tiny_bert, tmp_path / "changed")
    state = load_file(changed / "model.safetensors")
    name = next(name for name in state if name.endswith("query.weight"))
    state[name][0, 0] += 0.01
    save_file(state, changed / "model.safetensors", metadata={"format": "pt"})
    assert load_teacher(changed).identity != load_teacher(tiny_bert).identity


def test_a_device_that_is_not_there(tiny_bert):
    with pytest.raises(InputError, match="device=nonsense is not there"):
        load_teacher(tiny_bert, device="nonsense")
