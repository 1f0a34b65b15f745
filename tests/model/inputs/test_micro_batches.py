import pytest
import torch
from fake_device import FAKE, fake_device

from embedtrain.model import encoder as encoder_module
from embedtrain.model.folder.export import load_encoder
from embedtrain.model.inputs.micro_batches import device_tokens

GB = 10**9


@pytest.mark.parametrize(
    ("memory", "layers", "hidden", "expected"),
    [
        (80 * GB, 12, 768, 65_536),  # BERT-base: 40 GB at 0.525 MB a token are 76,150
        (24 * GB, 12, 768, 16_384),
        (80 * GB, 6, 384, 131_072),  # MiniLM: more would hold, and win nothing
        (8 * GB, 32, 4_096, 2_048),  # never fewer than on a CPU
        (None, 12, 768, 16_384),  # a device that does not say what it has
    ],
)
def test_a_micro_batch_fits_the_memory_of_a_gpu(memory, layers, hidden, expected):
    assert device_tokens(memory, layers, hidden) == expected


def test_an_encoder_takes_what_fits_where_it_is(tiny_bert, monkeypatch):
    encoder = load_encoder(tiny_bert)
    monkeypatch.setattr(encoder_module, "memory_of", lambda _: 2 * 57 * 4 * 32 * 5_000)
    assert encoder.micro_batch_tokens == 2_048
    with fake_device():
        assert encoder.to(FAKE).micro_batch_tokens == 4_096
    encoder.max_tokens = 77
    assert encoder.micro_batch_tokens == 77


@pytest.mark.parametrize("packing", [False, True])
def test_encoding_waits_for_the_vectors_of_a_micro_batch_alone(packing, tiny_bert):
    encoder = load_encoder(tiny_bert, packing=packing, max_tokens=32)
    texts = [" ".join(["cat"] * (1 + number % 5)) for number in range(30)]
    expected = encoder.encode(texts, (1, 4)).values
    with fake_device() as counts:
        encoder.to(FAKE)
        before = counts.copy()
        found = encoder.encode(texts, (1, 4)).values
        spent = counts.since(before)
    assert spent.copies, "texts were sent"
    assert {line.split(" /")[0] for line in spent.waits} == {"to the host"}, spent.waits
    lengths = [one.length for one in encoder.process.read(texts, "document")]
    assert sum(spent.waits.values()) == encoder.forwards(lengths)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_texts_are_read_ahead_of_the_model(tiny_bert, monkeypatch):
    """The reading of the second window begins before the first is encoded; the vectors are the same."""
    encoder, told = load_encoder(tiny_bert), []
    texts = [" ".join(["cat"] * (1 + number % 5)) for number in range(30)]
    monkeypatch.setattr(encoder_module, "WINDOW", 8)
    read, embed = encoder.process.read, encoder._embed
    expected = encoder.encode(texts, (1, 4)).values

    def noted_read(window, *given):
        told.append(f"read {len(window)}")
        return read(window, *given)

    def noted_embed(*given):
        told.append("embed")
        return embed(*given)

    monkeypatch.setattr(encoder.process, "read", noted_read)
    monkeypatch.setattr(encoder, "_embed", noted_embed)
    assert torch.equal(encoder.encode(texts, (1, 4)).values, expected)
    assert [item for item in told if item != "embed"] == ["read 8"] * 3 + ["read 6"]
    assert told.count("embed") == 4
