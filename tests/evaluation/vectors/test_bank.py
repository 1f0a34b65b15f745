import shutil

import numpy as np
import pytest
import torch
from small_runs import flip

from embedtrain.evaluation.vectors.bank import GridBank, NotHeldError
from embedtrain.evaluation.vectors.storage import GIB, Keeping
from embedtrain.types import InputError, SubModel

TEXTS = [f"red cat {number}" for number in range(200)]
LAYERS = (1, 3)
SUB = SubModel(3, 10)
RECORD = 2 * 16 * 4  # bytes of a text at two layers of width 16


def make_bank(encoder, identity="weights", told=None, **keeping):
    say = (lambda count: None) if told is None else told.append
    return GridBank(encoder, LAYERS, say, Keeping(**keeping), identity)


def gb(texts):
    return texts * RECORD / GIB


@pytest.fixture
def expected(make_encoder):
    return make_encoder().encode(TEXTS, [3]).at(SUB)


@pytest.mark.parametrize("memory", [None, 0.0, gb(70)])
@pytest.mark.parametrize("stored", [True, False])
def test_vectors_are_the_same_in_memory_on_disk_and_in_both(
    make_encoder, expected, tmp_path, memory, stored, caplog
):
    bank = make_bank(make_encoder(), folder=tmp_path if stored else None, memory_gb=memory)
    for start in range(0, 200, 50):
        bank.vectors(TEXTS[start : start + 50], "document", SUB)
    rows = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    assert torch.equal(bank.vectors([TEXTS[row] for row in rows], "document", SUB), expected[rows])
    assert len(bank) == 200
    in_memory = sum(block.shape[1] for block in bank.storage._blocks)
    assert in_memory == (200 if memory is None or not stored else 50 * (memory > 0))
    assert ("there is no store with room: memory grows" in caplog.text) == (not stored and memory is not None)


def test_memory_holds_the_vectors_and_little_more(make_encoder):
    bank = make_bank(make_encoder())
    for start in range(0, 200, 7):
        bank.vectors(TEXTS[start : start + 7], "document", SUB)
    held = sum(block.numel() * block.element_size() for block in bank.storage._blocks)
    assert held == 200 * RECORD


@pytest.mark.parametrize("memory", [None, 0.0])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_repeated_run_finds_its_vectors_and_encodes_nothing(make_encoder, tmp_path, memory, dtype):
    settings = {"folder": tmp_path, "memory_gb": memory, "dtype": dtype}
    bank = make_bank(make_encoder(), **settings)
    asked = (("query", None), ("document", "a: "))
    first = [bank.vectors(TEXTS, role, SUB, prompt) for role, prompt in asked]
    again, told = make_encoder(), []
    bank = make_bank(again, told=told, **settings)
    second = [bank.vectors(TEXTS, role, SUB, prompt) for role, prompt in asked]
    assert (again.calls, told) == (0, [])
    assert all(torch.equal(old, new) for old, new in zip(first, second, strict=True))
    bank.vectors(TEXTS[:3], "query", SUB, "a: ")
    assert again.texts == [("query", f"a: {text}") for text in TEXTS[:3]]


def test_a_run_that_was_stopped_finds_what_it_had_encoded(make_encoder, tmp_path, monkeypatch, expected):
    monkeypatch.setattr("embedtrain.evaluation.vectors.bank._ROUND", 64)

    class Stopped(make_encoder):
        def encode(self, texts, *rest, **named):
            if self.calls == 2:
                raise KeyboardInterrupt
            return super().encode(texts, *rest, **named)

    with pytest.raises(KeyboardInterrupt):
        make_bank(Stopped(), folder=tmp_path).vectors(TEXTS, "document", SUB)
    again = make_encoder()
    found = make_bank(again, folder=tmp_path).vectors(TEXTS, "document", SUB)
    assert torch.equal(found, expected)
    assert [text for _, text in again.texts] == TEXTS[128:]


@pytest.mark.parametrize("change", ["identity", "layers"])
def test_other_weights_or_layers_are_never_served(make_encoder, tmp_path, change):
    make_bank(make_encoder(), folder=tmp_path).vectors(TEXTS, "document", SUB)
    other = make_encoder(seed=1)
    layers, identity = (LAYERS, "changed") if change == "identity" else ((2, 3), "weights")
    bank = GridBank(other, layers, lambda count: None, Keeping(folder=tmp_path), identity)
    assert torch.equal(bank.vectors(TEXTS, "document", SUB), make_encoder(seed=1).encode(TEXTS, [3]).at(SUB))
    assert len(other.texts) == 200


@pytest.mark.parametrize("memory", [None, 0.0])
def test_damaged_vectors_are_encoded_again_with_a_warning(make_encoder, expected, tmp_path, memory, caplog):
    make_bank(make_encoder(), folder=tmp_path).vectors(TEXTS, "document", SUB)
    (path,) = tmp_path.rglob("*.vectors")
    for place in (500, 9_000, -20):
        flip(path, place)
    path.write_bytes(path.read_bytes() + b"torn")
    again = make_encoder()
    bank = make_bank(again, folder=tmp_path, memory_gb=memory)
    assert torch.equal(bank.vectors(TEXTS, "document", SUB), expected)
    assert len(again.texts) == 3
    assert f"{path} is damaged (3 records" in caplog.text
    third = make_encoder()
    assert torch.equal(
        make_bank(third, folder=tmp_path, memory_gb=memory).vectors(TEXTS, "document", SUB), expected
    )
    assert third.calls == 0


def test_a_full_disk_is_named_and_loses_nothing(make_encoder, expected, tmp_path, monkeypatch, full_disk):
    bank = make_bank(make_encoder(), folder=tmp_path)
    bank.vectors(TEXTS[:100], "document", SUB)
    full_disk("embedtrain.vectors.records.make_records")
    with pytest.raises(InputError, match=r"the disk is full\. What was written before is safe"):
        bank.vectors(TEXTS, "document", SUB)
    monkeypatch.undo()
    again = make_encoder()
    assert torch.equal(make_bank(again, folder=tmp_path).vectors(TEXTS, "document", SUB), expected)
    assert len(again.texts) == 100


def test_a_full_store_is_not_grown_and_says_so(make_encoder, expected, tmp_path, caplog):
    bank = make_bank(make_encoder(), folder=tmp_path, store_gb=gb(150))
    for start in range(0, 200, 50):
        found = bank.vectors(TEXTS[start : start + 50], "document", SUB)
        assert torch.equal(found, expected[start : start + 50])
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.vectors")) <= 150 * RECORD
    assert caplog.text.count("further vectors are not stored there") == 1
    again = make_encoder()
    make_bank(again, folder=tmp_path).vectors(TEXTS, "document", SUB)
    assert len(again.texts) == 100


def test_float16_halves_memory_keeps_directions_and_does_not_overflow(make_encoder, tmp_path):
    class Large(make_encoder):
        def _vector(self, text, layer):
            return 1e6 * super()._vector(text, layer)

    bank = make_bank(Large(), dtype="float16", folder=tmp_path)
    found = bank.vectors(TEXTS, "document", SUB)
    assert bank.storage._blocks[0].element_size() == 2
    assert torch.allclose(found, Large().encode(TEXTS, [3]).at(SUB), atol=1e-3)
    assert np.isfinite(found.numpy()).all()


def test_a_closed_bank_serves_what_it_holds_and_looks_for_nothing(make_encoder, tmp_path):
    make_bank(make_encoder(), folder=tmp_path).vectors(TEXTS, "document", SUB)
    bank = make_bank(make_encoder(), folder=tmp_path)
    bank.vectors(TEXTS[:5], "document", SUB)
    bank.closed = True
    bank.vectors(TEXTS[:5], "document", SubModel(1, 3))
    with pytest.raises(NotHeldError):
        bank.vectors(TEXTS[:6], "document", SUB)


def test_a_store_that_is_gone_or_no_folder_is_named(make_encoder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=f"cannot make the vector store {tmp_path}/file"):
        make_bank(make_encoder(), folder=tmp_path / "file")
    bank = make_bank(make_encoder(), folder=tmp_path / "store")
    shutil.rmtree(tmp_path / "store")
    with pytest.raises(InputError, match="cannot write vectors to"):
        bank.vectors(TEXTS, "document", SUB)
