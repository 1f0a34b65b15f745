import itertools
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from embedtrain.model.encoder import Encoder
from embedtrain.model.folder.export import load_encoder
from embedtrain.model.inputs.micro_batches import micro_batches
from embedtrain.model.pooling import Cls, LatentAttention
from embedtrain.types import InputError, Inputs, SubModel

LAYERS = (1, 2, 4)


@pytest.fixture(scope="module", params=["tiny_bert", "tiny_modernbert"])
def folder(request) -> Path:
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["mean", "cls"])
def encoder(folder, request) -> Encoder:
    return load_encoder(folder, pooling=request.param).eval()


@pytest.mark.parametrize("max_tokens", [1, 30, 64, 10_000])
@torch.no_grad()
def test_micro_batches_change_no_embedding_and_keep_the_order(folder, sentences, max_tokens):
    encoder = load_encoder(folder, max_tokens=max_tokens).eval()
    whole = load_encoder(folder).eval()
    tokens = whole.process(sentences, "query")
    expected = whole(tokens, LAYERS).values
    torch.testing.assert_close(encoder(tokens, LAYERS).values, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(encoder.encode(sentences, LAYERS).values, expected, rtol=0, atol=1e-5)


def loss_gradients(encoder: Encoder, tokens: Inputs) -> tuple[float, dict[str, Tensor]]:
    encoder.zero_grad()
    embeddings = encoder(tokens, LAYERS)
    rows = torch.cat([embeddings.at(SubModel(layer, 16)) for layer in LAYERS], dim=1)
    loss = torch.logsumexp(5 * rows @ rows.T, dim=1).sum()
    loss.backward()
    return loss.item(), {
        name: value.grad for name, value in encoder.named_parameters() if value.grad is not None
    }


@pytest.mark.parametrize("max_tokens", [1, 40])
def test_micro_batches_change_no_gradient(folder, sentences, max_tokens):
    encoder = load_encoder(folder, dtype=torch.float64).eval()
    tokens = encoder.process(sentences, "document")
    encoder.max_tokens = 10_000
    loss, whole = loss_gradients(encoder, tokens)
    encoder.max_tokens = max_tokens
    other, parts = loss_gradients(encoder, tokens)
    assert abs(loss - other) < 1e-10
    assert whole.keys() == parts.keys()
    assert whole.keys() == {name for name, value in encoder.named_parameters() if value.requires_grad}
    for name, grad in whole.items():
        torch.testing.assert_close(grad, parts[name], rtol=0, atol=1e-10)


def test_gradient_checkpointing_works_through_micro_batches(folder, sentences):
    encoder = load_encoder(folder, dtype=torch.float64, max_tokens=60)
    for part in encoder.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    encoder.train()
    tokens = encoder.process(sentences, "document")
    loss, plain = loss_gradients(encoder, tokens)
    encoder.backbone.gradient_checkpointing(True)
    again, recomputed = loss_gradients(encoder, tokens)
    assert loss == pytest.approx(again, abs=1e-10)
    for name, grad in plain.items():
        torch.testing.assert_close(grad, recomputed[name], rtol=0, atol=1e-10)


def test_micro_batches_are_sorted_and_within_the_budget():
    lengths = [3, 50, 7, 7, 20, 1, 120, 7]
    groups = micro_batches(lengths, 60)
    assert sorted(itertools.chain(*groups)) == list(range(len(lengths)))
    flat = [lengths[row] for group in groups for row in group]
    assert flat == sorted(lengths, reverse=True)
    assert all(len(group) * lengths[group[0]] <= 60 or len(group) == 1 for group in groups)
    assert [row for group in groups for row in group if lengths[row] == 7] == [2, 3, 7]
    assert micro_batches([], 60) == []


@pytest.mark.parametrize("overhead", [0, 10, 100])
def test_a_cut_saves_more_padding_than_it_costs(overhead):
    def cost(groups):
        return sum(len(group) * lengths[group[0]] + overhead for group in groups)

    for seed in range(20):
        draw = np.random.default_rng(seed)
        lengths = np.concatenate([draw.integers(2, 6, 40), draw.integers(10, 40, 40)]).tolist()
        whole, cut = micro_batches(lengths, 800), micro_batches(lengths, 800, overhead)
        assert [lengths[row] for group in cut for row in group] == sorted(lengths, reverse=True)
        assert sorted(itertools.chain(*cut)) == list(range(80))
        assert all(len(group) * lengths[group[0]] <= 800 for group in cut)
        assert cost(cut) < cost(whole)
    assert micro_batches([9] * 30, 90, 0) == micro_batches([9] * 30, 90)


def test_the_budget_fits_the_device_where_none_is_given(folder, sentences):
    encoder = load_encoder(folder).eval()
    sizes: list[int] = []
    encoder.backbone.register_forward_pre_hook(lambda _module, args: sizes.append(args[0].mask.numel()))
    encoder.encode(sentences * 100, (1,))
    assert 1_900 < max(sizes) <= 2_048


def test_little_is_padding(folder, sentences):
    encoder = load_encoder(folder, max_tokens=32, packing=False).eval()
    seen: list[tuple[int, int]] = []
    encoder.backbone.register_forward_pre_hook(
        lambda _module, args: seen.append((args[0].mask.numel(), int(args[0].mask.sum())))
    )
    tokens = encoder.process(sentences, "document")
    encoder(tokens, (1,))
    run, real = (sum(column) for column in zip(*seen, strict=True))
    assert real == int(tokens.mask.sum())
    assert (run - real) / run < 0.15 < 1 - real / tokens.mask.numel()


def test_encode_gives_cpu_float32_in_input_order_without_gradient(encoder, sentences):
    embeddings = encoder.encode(sentences, (4, 1, 4))
    assert embeddings.layers == (1, 4)
    assert embeddings.values.shape == (2, len(sentences), 32)
    assert embeddings.values.dtype == torch.float32
    assert embeddings.values.device.type == "cpu"
    assert not embeddings.values.requires_grad
    assert not embeddings.values.is_inference()
    with torch.no_grad():
        forward = encoder(encoder.process(sentences, "document"), (1, 4))
    torch.testing.assert_close(embeddings.values, forward.values, rtol=0, atol=1e-5)


def test_no_texts_give_no_rows(encoder):
    assert encoder.encode([], (1, 3)).values.shape == (2, 0, 32)
    empty = encoder(encoder.process([], "query"), (1, 3))
    assert empty.values.shape == (2, 0, 32)
    assert empty.layers == (1, 3)


def test_encode_gives_every_mode_back(folder, sentences):
    encoder = load_encoder(folder).train()
    encoder.pooling.eval()
    modes = {name: part.training for name, part in encoder.named_modules()}
    first = encoder.encode(sentences, (4,)).values
    assert torch.equal(first, encoder.encode(sentences, (4,)).values)
    assert {name: part.training for name, part in encoder.named_modules()} == modes
    assert modes[""]
    assert not modes["pooling"]
    with pytest.raises(ValueError, match="layers must be"):
        encoder.encode(sentences, (9,))
    assert {name: part.training for name, part in encoder.named_modules()} == modes


def test_encode_reports_progress_across_windows(folder, sentences, monkeypatch):
    monkeypatch.setattr("embedtrain.model.encoder.WINDOW", 3)
    encoder = load_encoder(folder, max_tokens=20)
    seen: list[tuple[int, int]] = []
    windowed = encoder.encode(sentences, (4,), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (8, 8)
    assert all(total == 8 for _, total in seen)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    monkeypatch.undo()
    torch.testing.assert_close(encoder.encode(sentences, (4,)).values, windowed.values, rtol=0, atol=1e-5)


def test_nothing_global_changes(folder, sentences):
    before = torch.get_rng_state(), torch.is_grad_enabled(), torch.get_default_dtype()
    encoder = load_encoder(folder)
    encoder.encode(sentences, (1, 4))
    after = torch.get_rng_state(), torch.is_grad_enabled(), torch.get_default_dtype()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_pooling_is_float32_under_autocast(folder, sentences):
    class Product(nn.Module):
        name: ClassVar[str] = "product"
        needs_all_layers: ClassVar[bool] = False
        needs_eos: ClassVar[bool] = False

        def forward(self, hiddens: Sequence[Tensor], mask: Tensor, layer: int) -> Tensor:
            weights = mask.float() / mask.sum(1, keepdim=True)
            pooled = (weights.unsqueeze(1) @ hiddens[-1].float()).squeeze(1)
            assert pooled.dtype == torch.float32
            return pooled

    encoder = load_encoder(folder, pooling=Product()).eval()
    exact = encoder(encoder.process(sentences, "query"), (4,)).values
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = encoder(encoder.process(sentences, "query"), (4,)).values
    assert mixed.dtype == torch.float32
    assert mixed.requires_grad
    assert 0 < (mixed - exact).abs().max() < 0.1 * exact.abs().max()


def test_a_pooling_that_needs_all_layers_gets_them(folder, sentences):
    class Sum(nn.Module):
        name: ClassVar[str] = "sum"
        needs_all_layers: ClassVar[bool] = True
        needs_eos: ClassVar[bool] = False

        def forward(self, hiddens: Sequence[Tensor], mask: Tensor, layer: int) -> Tensor:
            return Cls()([torch.stack(list(hiddens)).sum(0)], mask, layer)

    encoder = load_encoder(folder, pooling=Sum())
    single = load_encoder(folder, pooling="cls").encode(sentences, (1, 2, 3)).values
    values = encoder.encode(sentences, (1, 3)).values
    torch.testing.assert_close(values[0], single[0])
    torch.testing.assert_close(values[1], single.sum(0))


def test_float64_stays(folder, sentences):
    encoder = load_encoder(folder, dtype="float64")
    assert encoder.encode(sentences, (1,)).values.dtype == torch.float64
    assert encoder(encoder.process(sentences, "query"), (1,)).values.dtype == torch.float64


def test_tokens_are_right_padded_and_cut_at_max_length(folder, sentences):
    encoder = load_encoder(folder, max_length=7)
    tokens = encoder.process(sentences, "query")
    assert tokens.values.shape == tokens.mask.shape == (len(sentences), 7)
    assert tokens.values.dtype == torch.int64
    assert tokens.mask.dtype == torch.bool
    assert torch.equal(tokens.prompt_len, torch.zeros(len(sentences), dtype=torch.int64))
    assert tokens.mask[:, 0].all()
    assert (tokens.mask.sum(1) <= 7).all()
    ends = tokens.values[torch.arange(len(sentences)), tokens.mask.sum(1) - 1]
    assert (tokens.values[:, 0] == 2).all()
    assert (ends == 3).all()
    assert encoder.max_length == 7


def test_a_text_without_tokens_is_named(encoder):
    tokens = Inputs(
        torch.ones(2, 3, dtype=torch.int64), torch.tensor([[1, 1, 0], [0, 0, 0]]).bool(), torch.zeros(2)
    )
    with pytest.raises(ValueError, match="content 1 of 2 has no tokens"):
        encoder(tokens, (1,))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_length": 65}, r"max_length must be in 1\.\.64 for this backbone, got 65"),
        ({"max_length": 0}, r"max_length must be in 1\.\.64"),
        ({"max_tokens": 0}, "max_tokens must be positive, got 0"),
        ({"dtype": "int8"}, "dtype must be float32, bfloat16, float16 or float64, got 'int8'"),
        ({"pooling": "maxx"}, "pooling 'maxx' is not supported"),
        ({"attention": "causal"}, "an encoder, all its tokens see each other, so attention cannot be causal"),
        ({"lora": {"rank": 4, "tragets": "q"}}, "lora: .*unexpected keyword argument 'tragets'"),
        ({"lora": {"targets": "q_prj"}}, "lora targets 'q_prj' matches none of the linear layers"),
        ({"freeze_blocks": 5}, r"first_blocks must be in 0\.\.4, got 5"),
        ({"base": "x"}, "is no folder of adapters, so it has no use for base=x"),
        ({"padding_side": "top"}, "padding_side must be right or left, got 'top'"),
        ({"pooling": partial(LatentAttention, heads=5)},
         "heads=5 do not divide the hidden width 32 of this backbone"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_are_refused(folder, settings, message):
    with pytest.raises(InputError, match=message):
        load_encoder(folder, **settings)
