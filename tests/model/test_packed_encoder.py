"""Packing changes no embedding and no gradient, whatever the pooling, prompt, padding side or chunks."""

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from embedtrain.model.backbone import backbone
from embedtrain.model.encoder import Encoder
from embedtrain.model.folder.export import load_encoder
from embedtrain.model.pooling import POOLINGS
from embedtrain.training.gradcache import GradCache
from embedtrain.types import Embeddings, InputError, Inputs

LAYERS = (1, 2, 4)
MODELS = {
    "bert": ("tiny_bert", None),
    "modernbert": ("tiny_modernbert", None),
    "llama-causal": ("tiny_llama", "causal"),
    "llama": ("tiny_llama", "bidirectional"),
    "qwen3": ("tiny_qwen3", "causal"),
    "mistral": ("tiny_mistral", "bidirectional"),
    "gemma3": ("tiny_gemma3", "bidirectional"),
    "gemma3-causal": ("tiny_gemma3", "causal"),
}


class Pair(NamedTuple):
    """The same weights, in float64, without and with packing."""

    plain: Encoder
    packed: Encoder

    def tokens(self, texts, role="query", side="right") -> Inputs:
        self.plain.process.padding_side = side
        return self.plain.process(texts, role)


def pair_of(folder: Path, attention=None, pooling="mean", **settings) -> Pair:
    given = {"attention": attention, "pooling": pooling, "dtype": torch.float64, "include_prompt": False}
    given |= {"prompts": {"query": "the word: "}, **settings}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        plain = load_encoder(folder, **given).eval()
        torch.manual_seed(5)
        packed = load_encoder(folder, packing=True, **given).eval()
    if isinstance(plain.pooling, nn.Module):
        plain.pooling.double(), packed.pooling.double()
    return Pair(plain, packed)


@pytest.fixture(scope="module", params=MODELS)
def pair(request) -> Pair:
    folder, attention = MODELS[request.param]
    return pair_of(request.getfixturevalue(folder), attention)


@pytest.fixture(scope="module")
def bert(tiny_bert) -> Pair:
    return pair_of(tiny_bert)


def widths(encoder: Encoder) -> list[tuple[int, int]]:
    """Rows and columns of what the backbone will run."""
    seen: list[tuple[int, int]] = []
    encoder.backbone.register_forward_pre_hook(lambda _module, args: seen.append(tuple(args[0].values.shape)))
    return seen


def gradients(encoder: Encoder, tokens: Inputs, layers=LAYERS) -> tuple[Tensor, dict[str, Tensor]]:
    encoder.zero_grad()
    values = encoder(tokens, layers).values
    rows = F.normalize(values, dim=-1).transpose(0, 1).flatten(1)
    torch.logsumexp(5 * rows @ rows.T, dim=1).sum().backward()
    grads = {name: item.grad for name, item in encoder.named_parameters() if item.grad is not None}
    return values.detach(), grads


def check_equal(pair: Pair, tokens: Inputs, layers=LAYERS, given: Inputs | None = None) -> None:
    """Packed embeddings of `given`, the same texts, are the plain ones of `tokens`."""
    expected, slopes = gradients(pair.plain, tokens, layers)
    found, others = gradients(pair.packed, tokens if given is None else given, layers)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    assert slopes.keys() == others.keys()
    in_float32 = pair.plain.backbone.model.config.model_type == "gemma3_text"  # its norms, whatever it is in
    for name, slope in slopes.items():
        atol = 1e-5 * slope.abs().max().item() if in_float32 else 1e-9
        torch.testing.assert_close(others[name], slope, rtol=0, atol=atol)


@pytest.mark.parametrize("side", ["right", "left"])
def test_embeddings_and_gradients_are_those_without_packing(pair, sentences, side):
    seen = widths(pair.packed)
    tokens = pair.tokens(sentences * 2)
    assert (tokens.prompt_len > 0).all()
    check_equal(pair, tokens, given=pair.tokens(sentences * 2, side=side))
    assert sum(rows for rows, _ in seen) < len(sentences)  # of twice as many texts


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_pooling_sees_what_it_sees_without_packing(tiny_bert, pooling, sentences):
    pair = pair_of(tiny_bert, pooling=pooling, append_eos=True)
    seen = widths(pair.packed)
    for layers in (LAYERS, (3,)):
        check_equal(pair, pair.tokens(sentences, "document"), layers)
    check_equal(pair, pair.tokens(sentences, side="left"))
    assert sum(rows for rows, _ in seen) < 3 * len(sentences)


def test_the_probe_allows_the_rounding_of_autocast(tiny_bert, monkeypatch):
    encoder, seen = load_encoder(tiny_bert), []
    monkeypatch.setattr(backbone, "check_packing", lambda *given: seen.append(given[-1]))
    encoder.backbone.expect_packing()
    with torch.autocast("cpu", torch.bfloat16):
        encoder.backbone.expect_packing()
    assert seen == [torch.float32, torch.bfloat16]


def test_float32_is_right_to_rounding(tiny_modernbert, sentences):
    pair = pair_of(tiny_modernbert, dtype=torch.float32)
    with torch.no_grad():
        tokens = pair.tokens(sentences)
        plain, packed = (encoder(tokens, LAYERS).values for encoder in pair)
    torch.testing.assert_close(packed, plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize("max_tokens", [1, 40, 64, 150, 10_000])
def test_the_budget_holds_and_the_order_stays(bert, sentences, max_tokens, monkeypatch):
    monkeypatch.setattr("embedtrain.model.inputs.groups.PACKED_WIDTH", 24)
    monkeypatch.setattr(bert.packed, "max_tokens", max_tokens)
    seen = widths(bert.packed)
    tokens = bert.tokens(sentences * 3)  # some texts are longer than a row of several
    lengths = tokens.mask.sum(1)
    assert lengths.max() > 24
    check_equal(bert, tokens)
    longest = lengths.max()  # which runs alone where the budget is less
    assert all(rows * width <= max_tokens or (rows == 1 and width <= longest) for rows, width in seen)
    assert sum(rows * width for rows, width in seen) < 1.25 * lengths.sum()
    many = [*sentences] * 3
    found = bert.packed.encode(many, LAYERS, "query").values
    torch.testing.assert_close(found, bert.plain.encode(many, LAYERS, "query").values, rtol=0, atol=1e-10)


def test_texts_alone_in_their_rows_run_as_without_packing(bert, sentences, monkeypatch):
    given: list[object] = []
    monkeypatch.setattr("embedtrain.model.inputs.groups.PACKED_WIDTH", 32)
    monkeypatch.setattr("embedtrain.model.backbone.positions.packed_inputs", lambda *_: pytest.fail("packed"))
    bert.packed.backbone.register_forward_pre_hook(lambda _module, args: given.append(args[0]))
    for texts in (sentences[:1], [sentences[2], sentences[5]], []):  # the two together are wider than a row
        tokens = bert.tokens(texts)
        torch.testing.assert_close(bert.packed(tokens, (4,)).values, bert.plain(tokens, (4,)).values)
    assert all(isinstance(item, Inputs) for item in given)
    assert given


def test_no_texts_give_no_rows(bert):
    assert bert.packed.encode([], (1, 3)).values.shape == (2, 0, 32)


def test_checkpointing_and_adapters_give_the_same_gradient(tiny_llama, sentences):
    pair = pair_of(tiny_llama, "bidirectional", lora={"rank": 2, "dropout": 0.0}, gradient_checkpointing=True)
    for encoder in pair:
        for name, value in encoder.named_parameters():
            if "lora_B" in name:
                value.data += 0.1
        encoder.train()
    check_equal(pair, pair.tokens(sentences))
    assert any("lora" in name for name, _ in pair.packed.named_parameters())


def test_chunks_of_gradcache_give_the_gradient_of_the_whole(bert, sentences):
    tokens, chunks = bert.tokens(sentences * 2), GradCache(max_tokens=100)
    assert len(chunks.chunks(tokens)) > 2

    def score(texts: Embeddings) -> Tensor:
        rows = F.normalize(texts.values, dim=-1).transpose(0, 1).flatten(1)
        return torch.logsumexp(5 * rows @ rows.T, dim=1).sum()

    bert.packed.zero_grad()
    steps = {"seed": lambda chunk: chunk, "backward": lambda loss: loss.backward()}
    last = chunks(bert.packed, tokens, LAYERS, score, owned=[], **steps)
    last.backward()
    found = {name: item.grad for name, item in bert.packed.named_parameters() if item.grad is not None}
    _, expected = gradients(bert.plain, tokens)
    assert found.keys() == expected.keys()
    for name, slope in expected.items():
        torch.testing.assert_close(found[name], slope, rtol=0, atol=1e-9, msg=name)


def test_a_rank_with_fewer_micro_batches_runs_idle_ones(bert, sentences, monkeypatch):
    monkeypatch.setattr(bert.packed, "agree", lambda counts: [count + 2 for count in counts])
    seen = widths(bert.packed)
    check_equal(bert, bert.tokens(sentences))
    assert seen[-2:] == [(1, 1), (1, 1)]
    empty = bert.packed(bert.tokens([]), LAYERS).values
    assert empty.shape == (3, 0, 32)
    empty.sum().backward()


def test_dropout_is_drawn_alike_when_a_chunk_runs_again(tiny_bert, sentences):
    encoder = load_encoder(tiny_bert, packing=True).train()
    tokens = encoder.process(sentences, "document")
    values = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        values.append(encoder(tokens, (4,)).values)
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])


def test_a_model_that_cannot_pack_is_refused_when_it_is_loaded(tiny_bert, monkeypatch):
    monkeypatch.setattr("embedtrain.model.backbone.packed_attention.DENSE", ("eager",))
    with pytest.raises(InputError, match=r"cannot be packed with attn_implementation=sdpa: .*packing=false"):
        load_encoder(tiny_bert, packing=True)
    assert not load_encoder(tiny_bert).packing


UNLIKE = [
    "a cat",
    "the old man plays the guitar in the house by the river",
    "red",
    "a dog runs to the tree",
] * 8


def without_dropout(encoder: Encoder) -> Encoder:
    for part in encoder.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    return encoder


@pytest.mark.parametrize(("training", "overhead"), [(True, 128), (False, 48)])
def test_a_cpu_packs_where_it_saves_tokens(tiny_bert, monkeypatch, training, overhead):
    def cost():
        return sum(rows * columns + overhead for rows, columns in seen)

    one_each = without_dropout(load_encoder(tiny_bert, packing=False).train(training))
    tokens = one_each.process(UNLIKE, "document")
    seen = widths(one_each)
    plain = one_each(tokens, LAYERS).values
    apart = cost()
    encoder = without_dropout(load_encoder(tiny_bert).train(training))
    seen = widths(encoder)
    encoder(tokens, LAYERS)  # probes once
    seen.clear()
    packed = encoder(tokens, LAYERS).values
    assert cost() < 0.9 * apart
    torch.testing.assert_close(packed, plain)
    monkeypatch.setattr("embedtrain.model.backbone.packed_attention.DENSE", ("eager",))
    other = load_encoder(tiny_bert).train(training)
    assert other(tokens, LAYERS).values.isfinite().all()
    assert other._can_pack is False


def test_a_pass_without_gradient_draws_the_dropout_of_one_with_it(tiny_bert):
    encoder = load_encoder(tiny_bert).train()
    tokens = encoder.process(UNLIKE, "document")
    torch.manual_seed(1)
    with torch.no_grad():
        first = encoder(tokens, LAYERS).values
    torch.manual_seed(1)
    assert torch.equal(encoder(tokens, LAYERS).values, first)


def test_autocast_casts_a_weight_once_for_all_micro_batches(tiny_bert):
    encoder = load_encoder(tiny_bert, max_tokens=32)
    tokens = encoder.process(UNLIKE, "document")
    weight = encoder.backbone.blocks[0].attention.self.query.weight
    seen = []

    class Casts(TorchDispatchMode):
        def __torch_dispatch__(self, kind, types, args=(), kwargs=None):
            if "_to_copy" in str(kind) and args[0].data_ptr() == weight.data_ptr():
                seen.append(kind)
            return kind(*args, **(kwargs or {}))

    assert len(widths_run(encoder, tokens)) > 2
    exact, _ = gradients(encoder, tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        with torch.no_grad():  # its casts have no gradient and must not be taken again
            encoder(tokens, LAYERS)
        with Casts():
            values, grads = gradients(encoder, tokens)
    assert len(seen) == 1
    assert F.cosine_similarity(values, exact, dim=-1).min() > 0.999
    assert grads["backbone.model.encoder.layer.0.attention.self.query.weight"].abs().sum() > 0


def widths_run(encoder: Encoder, tokens: Inputs) -> list[tuple[int, int]]:
    seen = widths(encoder)
    encoder(tokens, LAYERS)
    return seen
