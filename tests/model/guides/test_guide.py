import pickle
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from fake_device import FAKE, fake_device
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Pooling, StaticEmbedding, Transformer
from tokenizers import Tokenizer
from torch import nn

from embedtrain.model.folder.export import load_encoder, save_encoder
from embedtrain.model.guides import guide as guide_module
from embedtrain.model.guides.guide import GuideModel, load_guide, text_keys
from embedtrain.training.steps.contrastive.collate import stack_inputs
from embedtrain.types import InputError, Inputs, SubModel

PROMPTS = {"query": "the small ", "document": "a green "}


@pytest.fixture(scope="module")
def dense_model(tiny_bert, tmp_path_factory) -> Path:
    """A sentence-transformers model that embedtrain itself does not read: a tanh layer after pooling."""
    torch.manual_seed(5)
    modules = [
        Transformer(str(tiny_bert)),
        Pooling(32, "mean", include_prompt=False),
        Dense(32, 12, activation_function=nn.Tanh()),
    ]
    model = SentenceTransformer(modules=modules, device="cpu", prompts=dict(PROMPTS))
    folder = tmp_path_factory.mktemp("guides") / "dense"
    model.save(str(folder), create_model_card=False)
    return folder


@pytest.fixture(scope="module")
def static_model(tiny_bert, tmp_path_factory) -> Path:
    torch.manual_seed(6)
    tokenizer = Tokenizer.from_file(str(tiny_bert / "tokenizer.json"))
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=10)], device="cpu")
    folder = tmp_path_factory.mktemp("guides") / "static"
    model.save(str(folder), create_model_card=False)
    return folder


def both_roles(guide: GuideModel, texts: tuple[str, ...]) -> Inputs:
    return stack_inputs([guide.process(texts, "query"), guide.process(texts, "document")])


def count_encoded(guide: GuideModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Texts of each forward of the guide from now on."""
    counts, plain = [], guide.model.vectors

    def counting(tokens: Inputs) -> torch.Tensor:
        counts.append(len(tokens.values))
        return plain(tokens)

    monkeypatch.setattr(guide.model, "vectors", counting)
    return counts


@pytest.mark.parametrize(("layer", "dim"), [(None, None), (2, None), (2, 8), (None, 20)])
def test_vectors_are_those_of_the_sub_model(tiny_bert, sentences, layer, dim):
    guide = load_guide(tiny_bert, layer=layer, dim=dim, prompts=PROMPTS)
    encoder = load_encoder(tiny_bert, prompts=PROMPTS)
    sub = SubModel(layer or 4, dim or 32)
    expected = torch.cat([encoder.encode(sentences, [sub.layer], role).at(sub) for role in PROMPTS])
    found = guide.embed(both_roles(guide, sentences))
    assert found.shape == (2 * len(sentences), guide.width)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert not torch.allclose(*found.chunk(2), atol=1e-3)  # each role has its prompt


def test_blocks_above_the_layer_are_not_run(tiny_bert, sentences):
    guide = load_guide(tiny_bert, layer=2)
    assert guide.embed(guide.process(sentences, "query")).isfinite().all()  # tries once to pack
    guide.model.module.backbone.blocks[2].register_forward_hook(lambda *_: pytest.fail("ran block 3"))
    assert guide.embed(guide.process(sentences, "query")).isfinite().all()


@pytest.mark.parametrize("kind", ["dense_model", "static_model", "minilm_path"])
def test_vectors_are_those_of_sentence_transformers(kind, request, sentences):
    folder = request.getfixturevalue(kind)
    guide, oracle = load_guide(folder), SentenceTransformer(str(folder), device="cpu")
    expected = torch.cat(
        [
            encode(list(sentences), normalize_embeddings=True, convert_to_tensor=True)
            for encode in (oracle.encode_query, oracle.encode_document)
        ]
    )
    torch.testing.assert_close(guide.embed(both_roles(guide, sentences)), expected, rtol=0, atol=1e-5)
    assert guide.width == expected.shape[1]


def test_prompts_and_dims_of_a_sentence_transformers_model_can_be_chosen(dense_model, sentences):
    guide = load_guide(dense_model, dim=5, prompts={"query": "river "})
    oracle = SentenceTransformer(str(dense_model), device="cpu")
    expected = torch.cat(
        [
            oracle.encode(list(sentences), prompt=prompt, convert_to_tensor=True)[:, :5]
            for prompt in ("river ", "")
        ]
    )
    found = guide.embed(both_roles(guide, sentences))
    torch.testing.assert_close(found, F.normalize(expected, dim=-1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["tiny_bert", "dense_model", "static_model"])
def test_order_and_padding_change_nothing(kind, request, sentences):
    guide = load_guide(request.getfixturevalue(kind))
    tokens = both_roles(guide, sentences)
    found = guide.embed(tokens)
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0))
    wider = [F.pad(part[order], (0, 3)) if part.dim() == 2 else part[order] for part in tokens[:3]]
    torch.testing.assert_close(guide.embed(Inputs(*wider)), found[order], rtol=0, atol=1e-6)


def test_each_distinct_text_is_encoded_once(tiny_bert, sentences, monkeypatch):
    guide = load_guide(tiny_bert)  # without prompts a text is one and the same in both roles
    counts = count_encoded(guide, monkeypatch)
    tokens = stack_inputs([both_roles(guide, sentences), guide.process(sentences[:2], "query")])
    found = guide.embed(tokens)
    assert counts == [len(sentences)]
    assert torch.equal(found[: len(sentences)], found[len(sentences) : 2 * len(sentences)])
    assert torch.equal(found[-2:], found[:2])
    assert guide.embed(tokens.rows(slice(0))).shape == (0, 32)


def test_keys_know_prompt_and_truncation_and_not_padding(tiny_bert):
    encoder = load_encoder(tiny_bert, prompts=PROMPTS, include_prompt=False, max_length=8)
    texts = ["cat", "small cat", " ".join(["cat"] * 20), " ".join(["cat"] * 30)]
    query, document, bare = (
        text_keys(tokens).tolist()
        for tokens in (
            encoder.process(texts, "query"),
            encoder.process(texts, "document"),
            encoder.process(["the small cat"], "query", [""]),
        )
    )
    assert len(set(query + document + bare)) == 7
    assert query[2] == query[3]  # cut to the same tokens
    assert bare[0] != query[0]  # the same tokens, of which other ones are pooled
    assert text_keys(encoder.process(texts[:1], "query")).tolist() == query[:1]


def test_no_trainer_sees_the_guide(tiny_bert, sentences):
    class Module(nn.Module):
        def __init__(self, guide: GuideModel) -> None:
            super().__init__()
            self.guide = guide

    guide = load_guide(tiny_bert)
    parent = Module(guide).train()
    assert list(parent.parameters()) == []
    assert parent.state_dict() == {}
    assert not any(part.training for part in guide.model.module.modules())
    assert not any(weight.requires_grad for weight in guide.model.module.parameters())
    state = torch.get_rng_state()
    assert not guide.embed(guide.process(sentences, "query")).requires_grad
    assert torch.equal(torch.get_rng_state(), state)


def test_the_precision_of_the_run_is_not_the_guides(tiny_bert, sentences):
    guide = load_guide(tiny_bert)
    tokens = guide.process(sentences, "document")
    expected = guide.embed(tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(guide.embed(tokens), expected)
    half = load_guide(tiny_bert, dtype="bfloat16").embed(tokens)
    assert half.dtype == torch.float32
    assert 1e-4 < (half - expected).abs().max() < 0.1


@pytest.mark.parametrize("kind", ["tiny_bert", "dense_model", "static_model"])
def test_data_workers_take_the_tokenizer_along_without_the_model(kind, request, sentences):
    guide = load_guide(request.getfixturevalue(kind))
    sent = pickle.dumps(guide.process)
    copied, own = pickle.loads(sent)(sentences, "query"), guide.process(sentences, "query")
    for mine, theirs in zip(copied[:4], own[:4], strict=True):
        assert torch.equal(torch.as_tensor(mine), torch.as_tensor(theirs))
    assert b"torch" not in sent


@pytest.mark.parametrize("cache_dtype", ["float32", "float16"])
def test_cached_texts_are_not_encoded_again(tiny_bert, sentences, tmp_path, monkeypatch, cache_dtype):
    settings = {"layer": 3, "dim": 16, "cache": tmp_path, "cache_dtype": cache_dtype}
    guide = load_guide(tiny_bert, **settings)
    tokens = guide.process(sentences, "query")
    some = tokens.rows(slice(1, 5))
    first, whole = guide.embed(some), guide.embed(tokens)
    assert torch.equal(whole[1:5], first)

    again = load_guide(tiny_bert, **settings)
    counts = count_encoded(again, monkeypatch)
    assert torch.equal(again.embed(tokens), whole)  # bit for bit what the first run saw
    assert counts == []
    plain = load_guide(tiny_bert, layer=3, dim=16).embed(tokens)
    torch.testing.assert_close(whole, plain, rtol=0, atol=1e-6 if cache_dtype == "float32" else 1e-3)


def test_another_guide_has_vectors_of_its_own(tiny_bert, dense_model, sentences, tmp_path, monkeypatch):
    other = tmp_path / "other"
    changed = load_encoder(tiny_bert)
    with torch.no_grad():
        changed.backbone.blocks[0].attention.self.query.weight[0, 0] += 1
    save_encoder(changed, other)
    for path, settings in [
        (tiny_bert, {}),
        (tiny_bert, {"layer": 2}),
        (tiny_bert, {"dim": 8}),
        (tiny_bert, {"dtype": "bfloat16"}),
        (other, {}),
        (dense_model, {}),
    ]:
        guide = load_guide(path, cache=tmp_path / "cache", **settings)
        counts = count_encoded(guide, monkeypatch)
        guide.embed(guide.process(sentences, "document"))
        assert counts == [len(sentences)]


def test_what_cannot_guide_says_why(tiny_bert, dense_model, tmp_path):
    for settings, message in [
        ({"layer": 5}, r"layer must be in 1\.\.4 for the guide"),
        ({"dim": 33}, r"dim must be in 1\.\.32 for this guide, got 33"),
        ({"dtype": "int8"}, "dtype must be one of auto, float32, bfloat16, float16, got 'int8'"),
        ({"cache": tmp_path, "cache_dtype": "int8"}, "cache_dtype must be float16 or float32"),
    ]:
        with pytest.raises(InputError, match=message):
            load_guide(tiny_bert, **settings)
    with pytest.raises(InputError, match="there is no model folder"):
        load_guide(tmp_path / "nothing")
    broken = tmp_path / "broken"
    shutil.copytree(dense_model, broken)
    shutil.rmtree(broken / "2_Dense")
    with pytest.raises(InputError, match=r"broken is no guide: .*; sentence-transformers says"):
        load_guide(broken)


def test_a_layer_of_a_model_that_embedtrain_does_not_read_is_refused(static_model):
    with pytest.raises(InputError, match=f"{static_model} cannot be cut to layer 1: "):
        load_guide(str(static_model), layer=1)


def test_a_guide_computes_in_bfloat16_on_a_gpu_that_has_it(tiny_bert, sentences, tmp_path, monkeypatch):
    plain, half = (load_guide(tiny_bert, cache=tmp_path, **more) for more in ({}, {"dtype": "float32"}))
    tokens = plain.process(sentences, "query")
    assert torch.equal(plain.embed(tokens), half.embed(tokens)), "a CPU takes float32"
    with monkeypatch.context() as patched, fake_device():
        patched.setattr(guide_module, "multiplies_bfloat16", lambda device: device.type == "fakegpu")
        assert plain.to(FAKE).dtype == torch.bfloat16
        assert half.to(FAKE).dtype == torch.float32
        assert plain.cache.folder != half.cache.folder
        plain.model.module.to("cpu"), half.model.module.to("cpu")
    plain.cache = half.cache = None
    exact, coarse = half._encoded(tokens), plain._encoded(tokens)
    assert exact.dtype == coarse.dtype == torch.float32
    assert 1e-4 < (exact - coarse).abs().max() < 5e-2
