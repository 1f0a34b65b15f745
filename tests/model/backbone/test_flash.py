"""A model that asks for flash attention, with a stand-in for the kernel, which takes 16 bits alone."""

import pytest
import torch
import transformers.integrations.flash_attention as flash_code
from slow_flash import slow_flash
from transformers import AutoModel

from embedtrain.doctor.probes import attention_finding, padding_finding
from embedtrain.model.backbone import flash
from embedtrain.model.backbone.backbone import Backbone
from embedtrain.model.folder.export import load_encoder
from embedtrain.model.guides.guide import EncoderVectors, GuideModel
from embedtrain.types import InputError

TEXTS = ["a cat", "the big dog runs to the old house", "rain"]
COARSE = 3e-2


class Calls(list):
    """Dtypes of the calls, and the rows and columns of each."""


@pytest.fixture
def kernel(monkeypatch):
    """How often the kernel ran."""
    calls, shapes = Calls(), []

    def run(query, key, value, *args, target_dtype=None, **kwargs):
        if target_dtype is not None:
            query, key, value = (part.to(target_dtype) for part in (query, key, value))
        assert query.dtype in (torch.float16, torch.bfloat16), "FlashAttention only supports fp16 and bf16"
        calls.append(query.dtype)
        shapes.append(tuple(query.shape[:2]))
        return slow_flash(query, key, value, *args, **kwargs)

    monkeypatch.setattr(flash_code, "_flash_attention_forward", run)
    calls.shapes = shapes
    return calls


@pytest.fixture
def on_gpu(monkeypatch):
    """Lets the kernels run where the tests do."""
    monkeypatch.setattr(flash, "DEVICES", ("cpu",))


def asking(model):
    """It as loaded with attn_implementation=flash_attention_2, which this machine has not installed."""
    model.config._attn_implementation_internal = "flash_attention_2"
    return model


@pytest.fixture
def encoders(tiny_bert, tiny_llama):
    """The same model twice, without flash attention and with it."""

    def make(name, **settings):
        folder = {"bert": tiny_bert, "llama": tiny_llama}[name]
        plain, other = load_encoder(folder, **settings), load_encoder(folder, **settings)
        other.backbone = Backbone(asking(other.backbone.model))
        if settings.get("packing"):
            other.backbone.expect_packing()
        return plain, other

    return make


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("name", ["bert", "llama"])
def test_everything_outside_the_trainer_runs_in_16_bits(name, packing, kernel, on_gpu, encoders):
    plain, other = encoders(name, packing=packing)
    assert kernel, "it was probed"
    kernel.clear()
    layers = (1, 2)
    found, expected = (encoder.encode(TEXTS, layers).values for encoder in (other, plain))
    assert kernel
    assert found.dtype == torch.float32
    scale = expected.abs().max()
    assert (found - expected).abs().max() / scale < COARSE
    tokens = other.process(TEXTS, "query")
    guided = [GuideModel(EncoderVectors(encoder, 2)).embed(tokens) for encoder in (other, plain)]
    assert (guided[0] - guided[1]).abs().max() < COARSE
    assert attention_finding(other).level == "ok"
    assert padding_finding(other, TEXTS).level == "ok"


def test_packed_texts_are_one_row(kernel, on_gpu, encoders):
    """The kernel knows where each text begins, so that nothing is padding, whatever the lengths."""
    plain, other = encoders("bert", packing=True)
    texts = [*TEXTS * 20, "the big dog runs to the old house and the small cat sleeps in the big new house"]
    kernel.shapes.clear()
    found, expected = (encoder.encode(texts, (2,)).values for encoder in (other, plain))
    assert (found - expected).abs().max() / expected.abs().max() < COARSE
    tokens = sum(other.process.read([text], "document")[0].length for text in texts)
    assert set(kernel.shapes) == {(1, tokens)}


def test_off_the_gpu_another_implementation_runs(kernel, encoders):
    plain, other = encoders("bert", packing=True)
    assert torch.equal(other.encode(TEXTS, (2,)).values, plain.encode(TEXTS, (2,)).values)
    assert kernel == []


def test_it_is_probed_again_once_it_is_on_a_gpu(kernel, encoders, monkeypatch):
    _, other = encoders("bert", packing=True)
    inside, hooked = [], []

    def enter(*_):
        inside.append(True)
        hooked.append(len(inside))

    other.backbone.register_forward_pre_hook(enter)
    other.backbone.register_forward_hook(lambda *_: inside.pop() and None)
    monkeypatch.setattr(flash, "DEVICES", ("cpu",))
    other.encode(TEXTS, (2,))
    assert len(hooked) > 2, "the checks ran"
    assert set(hooked) == {1}, "none inside a forward: FSDP gathers weights in hooks"
    count = len(hooked)
    other.encode(TEXTS, (2,))
    assert len(hooked) == count + 1, "once"


def test_a_check_that_failed_is_asked_again(tiny_llama, kernel, monkeypatch):
    model = asking(AutoModel.from_pretrained(tiny_llama, attn_implementation="sdpa"))
    backbone = Backbone(model)
    for layer in model.layers:
        layer.self_attn.is_causal = False
    monkeypatch.setattr(flash, "DEVICES", ("cpu",))
    tokens = load_encoder(tiny_llama).process(TEXTS, "query")
    for _ in range(2):
        with pytest.raises(InputError, match="should have causal attention, but it is bidirectional"):
            backbone(tokens, (1,))
