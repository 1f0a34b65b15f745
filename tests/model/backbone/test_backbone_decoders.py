import pytest
import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModel, Gemma3Config, Gemma3Model, PreTrainedModel

from embedtrain.model.backbone.backbone import Backbone
from embedtrain.model.backbone.families import FAMILIES
from embedtrain.types import InputError, Inputs

DECODERS = ("tiny_llama", "tiny_qwen3", "tiny_mistral", "tiny_gemma3")
ATTENTIONS = ("causal", "bidirectional")
ALL = (0, 1, 2, 3, 4)
LENGTHS = (20, 12, 3)


def some_tokens(side: str, width: int = 20, rows: tuple[int, ...] = (0, 1, 2)) -> Inputs:
    """Some of three texts, padded to `width` on one side."""
    generator = torch.Generator().manual_seed(0)
    texts = [torch.randint(5, 180, (length,), generator=generator) for length in LENGTHS]
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for row, text in enumerate(rows):
        start = width - LENGTHS[text] if side == "left" else 0
        ids[row, start : start + LENGTHS[text]] = texts[text]
        mask[row, start : start + LENGTHS[text]] = True
    return Inputs(ids, mask, torch.zeros(len(rows), dtype=torch.int64))


def own_states(model: PreTrainedModel, tokens: Inputs) -> Tensor:
    """What plain transformers gives, positions over the columns and cache included."""
    return model(input_ids=tokens.values, attention_mask=tokens.mask.long()).last_hidden_state[tokens.mask]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_each_state_is_that_of_the_cut_model_on_either_padding_side(name, attention, side, request, tmp_path):
    backbone = Backbone.load(request.getfixturevalue(name), attention=attention)
    tokens = some_tokens(side)
    states = backbone(tokens, ALL)
    for layer in (1, 2, 3, 4):
        cut = backbone.cut(layer)
        assert cut.config.num_hidden_layers == len(cut.layers) == layer
        # Rotary positions that start at the padding differ by rounding only; ours start at the text.
        atol = 1e-6 if side == "right" else 1e-5
        torch.testing.assert_close(own_states(cut, tokens), states[layer][tokens.mask], rtol=0, atol=atol)
        again = Backbone(cut)(tokens, (layer,))[0]
        torch.testing.assert_close(again[tokens.mask], states[layer][tokens.mask], rtol=0, atol=1e-6)
    backbone.save(tmp_path, 3)
    loaded, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    torch.testing.assert_close(own_states(loaded, tokens), states[3][tokens.mask], rtol=0, atol=atol)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_padding_its_side_and_the_other_texts_do_not_matter(name, attention, request):
    backbone = Backbone.load(request.getfixturevalue(name), attention=attention)
    whole = some_tokens("right")
    for tokens in (some_tokens("left"), some_tokens("left", width=33), some_tokens("right", width=29)):
        for one, other in zip(backbone(whole, ALL), backbone(tokens, ALL), strict=True):
            torch.testing.assert_close(one[whole.mask], other[tokens.mask], rtol=0, atol=1e-5)
    alone = some_tokens("right", width=12, rows=(1,))
    for one, other in zip(backbone(whole, ALL), backbone(alone, ALL), strict=True):
        torch.testing.assert_close(one[1, :12], other[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_states_are_the_hidden_states_of_transformers_with_the_norm_on_each(name, request):
    backbone = Backbone.load(request.getfixturevalue(name))
    tokens = some_tokens("right")
    given = {"input_ids": tokens.values, "attention_mask": tokens.mask.long()}
    hidden = backbone.model(**given, output_hidden_states=True).hidden_states
    states = backbone(tokens, ALL)
    assert len(hidden) == 5
    for layer in (0, 1, 2, 3):
        normed = backbone.model.norm(hidden[layer])
        torch.testing.assert_close(states[layer][tokens.mask], normed[tokens.mask], rtol=0, atol=1e-6)
        assert not torch.allclose(states[layer][tokens.mask], hidden[layer][tokens.mask], atol=0.1)
    torch.testing.assert_close(states[4][tokens.mask], hidden[4][tokens.mask], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", DECODERS)
def test_every_parameter_takes_part_and_no_cache_is_kept(name, request):
    backbone = Backbone.load(request.getfixturevalue(name)).train()
    caches: list[object] = []
    backbone.model.register_forward_hook(lambda _model, _args, output: caches.append(output.past_key_values))
    sum(state.square().sum() for state in backbone(some_tokens("right"), (2, 4))).backward()
    assert [key for key, value in backbone.named_parameters() if value.grad is None] == []
    assert caches == [None]


def gradients(backbone: Backbone, tokens: Inputs) -> dict[str, Tensor]:
    backbone.zero_grad()
    weights = torch.linspace(-1, 1, 32, dtype=torch.float64)
    states = backbone(tokens, (1, 3))
    sum(((state[tokens.mask] @ weights) ** 2).sum() for state in states).backward()
    return {name: value.grad for name, value in backbone.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("name", DECODERS)
def test_gradient_checkpointing_changes_no_gradient(name, request):
    backbone = Backbone.load(request.getfixturevalue(name), attention="bidirectional", dtype=torch.float64)
    backbone.train()
    tokens = some_tokens("left")
    plain = gradients(backbone, tokens)
    runs: list[int] = []
    for block in backbone.blocks:
        block.self_attn.register_forward_pre_hook(lambda _part, _args: runs.append(1))
    backbone.gradient_checkpointing(True)
    recomputed = gradients(backbone, tokens)
    assert len(runs) == 6  # three blocks forward, and again in backward
    assert plain.keys() == recomputed.keys()
    for key, value in plain.items():
        torch.testing.assert_close(value, recomputed[key], rtol=0, atol=1e-10)


@pytest.mark.parametrize("model_type", sorted(name for name, family in FAMILIES.items() if family.decoder))
def test_every_decoder_type_goes_both_ways(model_type, tmp_path):
    config = CONFIG_MAPPING[model_type](
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        pad_token_id=0,
        **({} if model_type in ("qwen2", "phi3") else {"head_dim": 8}),
    )
    AutoModel.from_config(config).save_pretrained(tmp_path)
    for attention in ATTENTIONS:  # what the probe refuses does not load
        assert Backbone.load(tmp_path, attention=attention).attention == attention


def test_the_text_part_of_gemma3_stands_alone(tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    text = sizes | {"vocab_size": 300, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 8}
    image = sizes | {"image_size": 8, "patch_size": 4}
    config = Gemma3Config(text_config=text, vision_config=image, image_token_index=299, mm_tokens_per_image=4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        whole = Gemma3Model(config).eval()
    whole.save_pretrained(tmp_path / "whole")
    backbone = Backbone.load(tmp_path / "whole", attention="bidirectional")
    assert backbone.attention == "bidirectional"
    assert (backbone.num_layers, backbone.hidden_size) == (2, 32)
    assert not any("vision" in name for name, _ in backbone.named_parameters())
    tokens = some_tokens("right")
    causal = Backbone.load(tmp_path / "whole")
    torch.testing.assert_close(
        causal(tokens, (2,))[0][tokens.mask], own_states(whole, tokens), rtol=0, atol=1e-6
    )
    backbone.save(tmp_path / "text", 1)
    loaded = AutoModel.from_pretrained(tmp_path / "text")
    assert loaded.config.model_type == "gemma3_text"
    state = backbone(tokens, (1,))[0][tokens.mask]
    torch.testing.assert_close(own_states(loaded, tokens), state, rtol=0, atol=1e-6)


def test_a_decoder_that_lacks_blocks_is_refused(tiny_llama, tmp_path):
    config = (
        (tiny_llama / "config.json").read_text().replace('"num_hidden_layers": 4', '"num_hidden_layers": 5')
    )
    (tmp_path / "config.json").write_text(config)
    (tmp_path / "model.safetensors").write_bytes((tiny_llama / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match=r"lacks 9 weights of its 5 blocks, among them 'layers\.4"):
        Backbone.load(tmp_path)
