import json
from functools import partial

import pytest
import torch
import transformers.models.bert.modeling_bert as bert_code
import transformers.models.llama.modeling_llama as llama_code
from safetensors.torch import load_file, save_file
from tiny_models import tiny_config
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.masking_utils import create_causal_mask

from embedtrain.model.backbone.attention import attention_of, with_attention
from embedtrain.model.backbone.backbone import Backbone
from embedtrain.types import InputError, Inputs

DECODERS = ("tiny_llama", "tiny_qwen3", "tiny_mistral", "tiny_gemma3")
TEXT = [9, 30, 41, 22, 17]


def padded_texts(side: str, last: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A short and a long text whose short one ends in `last`: ids and mask, (2, 8)."""
    short = [*TEXT[:-1], last]
    pads, ones = [0] * 3, [1] * len(short)
    row, mask = (pads + short, pads + ones) if side == "left" else (short + pads, ones + pads)
    ids, masks = [row, [11, 12, 13, 14, 15, 16, 17, 18]], [mask, [1] * 8]
    if side == "none":
        ids, masks = [short, TEXT], [ones, ones]
    return torch.tensor(ids), torch.tensor(masks)


@torch.no_grad()
def first_token_moves(model: PreTrainedModel, side: str) -> bool:
    """Whether the first token of the short text feels its last one change, seen from outside."""
    states = []
    for last in (TEXT[-1], 50):
        ids, mask = padded_texts(side, last)
        states.append(model(input_ids=ids, attention_mask=mask).last_hidden_state[0, mask[0].argmax()])
    return not torch.equal(*states)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("attention", [None, "causal", "bidirectional"])
@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_attends_as_asked_and_so_does_what_is_saved(
    name, attention, implementation, request, tmp_path
):
    backbone = Backbone.load(
        request.getfixturevalue(name), attention=attention, attn_implementation=implementation
    )
    assert backbone.attention == (attention or "causal")
    backbone.save(tmp_path, 3)
    loaded = AutoModel.from_pretrained(tmp_path, attn_implementation=implementation)
    for model in (backbone.model, loaded, backbone.cut(2)):
        moves = [first_token_moves(model, side) for side in ("none", "right", "left")]
        assert moves == [attention == "bidirectional"] * 3
    ids, mask = padded_texts("right", TEXT[-1])
    state = backbone(Inputs(ids, mask.bool(), torch.zeros(2, dtype=torch.int64)), (3,))[0]
    again = loaded(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(again[mask.bool()], state[mask.bool()], rtol=0, atol=1e-6)
    assert Backbone.load(tmp_path).attention == backbone.attention


def test_sentence_transformers_reloads_a_bidirectional_decoder(tiny_qwen3, tmp_path):
    from sentence_transformers.models import Transformer

    Backbone.load(tiny_qwen3, attention="bidirectional").save(tmp_path, 4)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tiny_qwen3 / name).read_bytes())
    module = Transformer(str(tmp_path))
    states = [
        module(module.preprocess([text, "a bird sings in the big green tree"]))["token_embeddings"][0, 0]
        for text in ("the cat eats fish", "the cat eats ball")
    ]
    assert not torch.allclose(*states, atol=1e-3)


def test_a_folder_that_says_so_is_bidirectional_unless_causal_is_asked(tiny_llama, tmp_path):
    Backbone.load(tiny_llama, attention="bidirectional").save(tmp_path, 2)
    assert Backbone.load(tmp_path).attention == "bidirectional"
    causal = Backbone.load(tmp_path, attention="causal")
    assert causal.attention == "causal"
    assert not first_token_moves(causal.model, "right")


def test_a_causal_decoder_is_saved_with_the_config_it_came_with(tiny_llama, tmp_path):
    Backbone.load(tiny_llama).save(tmp_path, 4)
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (tiny_llama, tmp_path))
    assert before == after


def test_gemma3_shares_its_window_between_both_sides_and_gets_it_back(tiny_gemma3, tmp_path):
    config = AutoConfig.from_pretrained(tiny_gemma3)
    both = with_attention(config, "bidirectional")
    assert (config.sliding_window, both.sliding_window) == (8, 5)  # 5 is exclusive: 4 tokens on each side
    assert both.layer_types == config.layer_types
    assert with_attention(both, "causal").sliding_window == 8
    Backbone.load(tiny_gemma3, attention="bidirectional").save(tmp_path, 4)
    assert AutoConfig.from_pretrained(tmp_path).sliding_window == 5
    assert attention_of(config) == "causal"  # the config given is not changed


@pytest.mark.parametrize(
    ("kind", "implementation", "place"),
    [
        ("gemma", "sdpa", "after block 1, padded on the right"),  # only its padded batches are causal
        ("gemma", "eager", "after block 1, without padding"),
        ("gemma2", "eager", "after block 1, without padding"),
    ],
)
def test_the_switch_that_gemma_reads_by_half_is_refused_or_completed(kind, implementation, place):
    config = tiny_config(kind, num_hidden_layers=2, use_bidirectional_attention=True)
    with pytest.raises(InputError, match=f"should have bidirectional attention, but it is causal {place}"):
        Backbone(AutoModel.from_config(config, attn_implementation=implementation))
    completed = with_attention(config, None)
    backbone = Backbone(AutoModel.from_config(completed, attn_implementation=implementation))
    assert backbone.attention == "bidirectional"
    back = with_attention(completed, "causal")
    assert Backbone(AutoModel.from_config(back, attn_implementation=implementation)).attention == "causal"


@pytest.mark.parametrize("first", [1, 4])
def test_attention_set_on_the_modules_alone_is_refused(tiny_llama, first):
    model = AutoModel.from_pretrained(tiny_llama, attn_implementation="sdpa")
    for layer in model.layers[first - 1 :]:
        layer.self_attn.is_causal = False
    with pytest.raises(
        InputError,
        match=rf"'llama' should have causal attention, but it is bidirectional after block {first}, without "
        r"padding"
        r".*moves the first; attn_implementation is sdpa.*attn_implementation=eager, or ask for "
        r"attention=bidirectional",
    ):
        Backbone(model)


def test_a_decoder_whose_padded_batches_stay_causal_is_refused(tiny_llama, monkeypatch):
    def lies(config, attention_mask, **rest):
        """Bidirectional where nothing is padded, causal elsewhere."""
        if attention_mask.all():
            return None
        config = AutoConfig.from_pretrained(tiny_llama, attn_implementation="sdpa")
        return create_causal_mask(config=config, attention_mask=attention_mask, **rest)

    Backbone.load(tiny_llama, attention="bidirectional")
    monkeypatch.setattr(llama_code, "create_causal_mask", lies)
    with pytest.raises(InputError, match=r"but it is causal after block 1, padded on the right .*leaves the"):
        Backbone.load(tiny_llama, attention="bidirectional")


def test_an_encoder_that_attends_causally_is_refused(tiny_bert, monkeypatch):
    monkeypatch.setattr(
        bert_code, "create_bidirectional_mask", partial(create_causal_mask, past_key_values=None)
    )
    with pytest.raises(InputError, match="'bert' should have bidirectional attention, but it is causal"):
        Backbone.load(tiny_bert)


@pytest.mark.parametrize("name", ["tiny_bert", "tiny_modernbert"])
def test_an_encoder_is_bidirectional_and_cannot_be_causal(name, request):
    path = request.getfixturevalue(name)
    assert Backbone.load(path, attention="bidirectional").attention == "bidirectional"
    with pytest.raises(InputError, match=r"is an encoder.*attention cannot be causal: leave attention out"):
        Backbone.load(path, attention="causal")


def test_an_unknown_attention_is_refused(tiny_llama):
    with pytest.raises(InputError, match="attention must be causal or bidirectional, got 'both'"):
        Backbone.load(tiny_llama, attention="both")


@pytest.mark.parametrize("name", ["tiny_bert", "tiny_gemma3"])
def test_the_probe_leaves_random_state_modes_and_gradients_alone(name, request):
    model = AutoModel.from_pretrained(request.getfixturevalue(name)).train()
    first = next(part for part in model.modules() if not list(part.children()))
    first.eval()
    calls: list[tuple[int, ...]] = []
    model.register_forward_pre_hook(
        lambda _model, _args, given: calls.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    before = torch.get_rng_state()
    backbone = Backbone(model)
    assert torch.equal(before, torch.get_rng_state())
    assert model.training
    assert not first.training
    assert torch.is_grad_enabled()
    assert all(value.grad is None for value in backbone.parameters())
    assert calls == [(1, 3), (1, 3), (2, 5), (2, 5)]


def test_states_that_are_not_finite_are_named(tiny_llama, tmp_path):
    weights = load_file(tiny_llama / "model.safetensors")
    weights["layers.0.mlp.up_proj.weight"][:] = float("inf")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text((tiny_llama / "config.json").read_text())
    with pytest.raises(
        InputError, match=r"states after block 1 are not finite in float32.*weights are broken"
    ):
        Backbone.load(tmp_path)


def test_tokens_that_are_alike_to_the_model_prove_nothing(tiny_llama):
    model = AutoModel.from_pretrained(tiny_llama)
    model.embed_tokens.weight.data[:] = model.embed_tokens.weight.data[7]
    for attention in ("causal", "bidirectional"):
        model.config.is_causal = attention == "causal"
        assert Backbone(model).attention == attention


def test_flash_attention_that_is_not_installed_names_the_package(tiny_llama):
    with pytest.raises(InputError, match="pip install flash-attn --no-build-isolation"):
        Backbone.load(tiny_llama, attn_implementation="flash_attention_2", dtype=torch.bfloat16)
