import gc
import weakref

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import some_tokens, tiny_config, tiny_model
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoModel, BertConfig, Gemma3Config, Gemma3Model, PreTrainedModel

from embedtrain.model.backbone.backbone import Backbone
from embedtrain.model.backbone.families import FAMILIES
from embedtrain.model.backbone.loading import loader
from embedtrain.types import InputError, Inputs

ALL = (0, 1, 2, 3, 4)
DECODERS = sorted(kind for kind, family in FAMILIES.items() if family.decoder)
ROTARY = [kind for kind in DECODERS if kind != "gpt2"]  # plain GPT-2 counts its padding
CASES = [
    (kind, attention)
    for kind in sorted(FAMILIES)
    for attention in (("causal", "bidirectional") if kind in DECODERS else (None,))
]


def backbone_of(kind: str, attention: str | None = None, **changes: object) -> Backbone:
    return Backbone(tiny_model(tiny_config(kind, **changes), attention))


def own_states(model: PreTrainedModel, tokens: Inputs) -> Tensor:
    """What plain transformers gives, positions over the columns and cache included."""
    return model(input_ids=tokens.values, attention_mask=tokens.mask.long()).last_hidden_state[tokens.mask]


@pytest.mark.parametrize(("kind", "attention"), CASES)
@torch.no_grad()
def test_each_state_is_that_of_the_physically_cut_model(kind, attention, tmp_path):
    backbone = backbone_of(kind, attention)
    for left in (False, True) if kind in ROTARY else (False,):
        # Rotary positions that start at the padding differ by rounding only; ours start at the text.
        tokens, atol = some_tokens(pad=backbone.model.config.pad_token_id, left=left), 1e-5 if left else 1e-6
        states = backbone(tokens, ALL)
        for layer in (1, 2, 3, 4):
            cut = backbone.cut(layer)
            assert cut.config.num_hidden_layers == layer
            state = states[layer][tokens.mask]
            torch.testing.assert_close(own_states(cut, tokens), state, rtol=0, atol=atol)
        if not left:
            torch.testing.assert_close(state, own_states(backbone.model, tokens), rtol=0, atol=atol)
    backbone.save(tmp_path, 3)
    loaded, info = loader(backbone.model.config).from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    torch.testing.assert_close(own_states(loaded.eval(), tokens), states[3][tokens.mask], rtol=0, atol=atol)


@pytest.mark.parametrize(("kind", "attention"), CASES)
@torch.no_grad()
def test_padding_its_side_and_the_other_texts_do_not_matter(kind, attention):
    backbone = backbone_of(kind, attention)
    pad = backbone.model.config.pad_token_id
    whole = some_tokens(pad=pad)
    states = backbone(whole, ALL)
    atol = 1e-4 if "t5" in kind else 1e-5  # T5 does not scale the products of its attention
    for padding in [{"left": True}, {"left": True, "width": 33}, {"width": 29}]:
        tokens = some_tokens(pad=pad, **padding)
        for one, other in zip(states, backbone(tokens, ALL), strict=True):
            torch.testing.assert_close(one[whole.mask], other[tokens.mask], rtol=0, atol=atol)
    for one, other in zip(states, backbone(some_tokens(pad=pad, rows=[1]), ALL), strict=True):
        torch.testing.assert_close(one[1, :12], other[0], rtol=0, atol=atol)


@pytest.mark.parametrize("kind", ["bert", "roberta", "mpnet"])
@torch.no_grad()
def test_what_stands_in_the_padding_does_not_matter(kind):
    backbone = backbone_of(kind)
    tokens = some_tokens(pad=backbone.model.config.pad_token_id)
    other = tokens._replace(values=torch.where(tokens.mask, tokens.values, 7))
    for one, two in zip(backbone(tokens, ALL), backbone(other, ALL), strict=True):
        torch.testing.assert_close(one[tokens.mask], two[tokens.mask], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", sorted(kind for kind, family in FAMILIES.items() if family.final_norm))
@torch.no_grad()
def test_the_final_norm_is_on_every_state_of_a_prenorm_model(kind):
    backbone = backbone_of(kind)
    tokens, raw = some_tokens(pad=backbone.model.config.pad_token_id), []
    for block in backbone.blocks:
        block.register_forward_pre_hook(
            lambda _block, args, given: raw.append(args[0] if args else given["hidden_states"]),
            with_kwargs=True,
        )
    own_states(backbone.model, tokens)
    norm = backbone.model.get_submodule(FAMILIES[kind].final_norm)
    for before, state in zip(raw[:4], backbone(tokens, (0, 1, 2, 3)), strict=True):
        torch.testing.assert_close(norm(before)[tokens.mask], state[tokens.mask], rtol=0, atol=1e-6)
        assert not torch.allclose(before[tokens.mask], state[tokens.mask], atol=0.1)


@pytest.mark.parametrize("kind", DECODERS)
def test_every_parameter_takes_part_and_no_cache_is_kept(kind):
    backbone = backbone_of(kind).train()
    caches: list[object] = []
    backbone.model.register_forward_hook(lambda _model, _args, output: caches.append(output.past_key_values))
    sum(state.square().sum() for state in backbone(some_tokens(), (2, 4))).backward()
    assert [key for key, value in backbone.named_parameters() if value.grad is None] == []
    assert caches == [None]


def test_modernbert_cut_keeps_which_blocks_are_global():
    backbone = backbone_of("modernbert")
    whole = backbone.model.config.layer_types
    assert len(set(whole)) == 2
    cut = backbone.cut(2)
    assert list(cut.config.layer_types) == list(whole[:2])
    assert len(backbone.model.config.layer_types) == backbone.model.config.num_hidden_layers == 4


def block_calls(backbone: Backbone) -> tuple[list[int], list[torch.utils.hooks.RemovableHandle]]:
    calls: list[int] = []
    blocks: nn.ModuleList = backbone.model.get_submodule(FAMILIES[backbone.model.config.model_type].blocks)
    handles = [
        block.register_forward_pre_hook(lambda _block, _args, number=number: calls.append(number))
        for number, block in enumerate(blocks, start=1)
    ]
    return calls, handles


@pytest.mark.parametrize("model_type", ["bert", "modernbert", "distilbert"])
def test_blocks_above_the_deepest_layer_are_not_run(model_type):
    backbone = backbone_of(model_type)
    calls, _ = block_calls(backbone)
    backbone(some_tokens(), (2, 1))
    assert calls == [1, 2]
    calls.clear()
    backbone(some_tokens(), (0,))
    assert calls == []
    calls.clear()
    backbone(some_tokens(), (4, 1))
    assert calls == [1, 2, 3, 4]
    assert backbone.num_layers == len(block_calls(backbone)[1]) == 4


@torch.no_grad()
def test_states_come_in_the_order_asked_for_and_do_not_depend_on_the_others():
    backbone = backbone_of("modernbert")
    tokens = some_tokens()
    mixed = backbone(tokens, (3, 0, 1))
    for layer, state in zip((3, 0, 1), mixed, strict=True):
        torch.testing.assert_close(backbone(tokens, (layer,))[0], state, rtol=0, atol=1e-6)


@pytest.mark.parametrize("layers", [(), (5,), (-1, 2)])
def test_a_layer_out_of_range_is_refused(layers):
    with pytest.raises(ValueError, match=r"layers must be in 0\.\.4 and not empty"):
        backbone_of("bert")(some_tokens(), layers)


@pytest.mark.parametrize("layer", [0, 5])
def test_a_cut_out_of_range_is_refused(layer, tmp_path):
    backbone = backbone_of("bert")
    with pytest.raises(ValueError, match=r"layer must be in 1\.\.4"):
        backbone.cut(layer)
    with pytest.raises(ValueError, match=r"layer must be in 1\.\.4"):
        backbone.save(tmp_path, layer)


def test_an_error_inside_leaves_the_backbone_whole():
    backbone = backbone_of("bert")
    with pytest.raises(IndexError):
        backbone(some_tokens()._replace(values=torch.full((3, 20), 9999)), (2, 1))
    assert len(backbone.model.encoder.layer) == 4
    assert all(not block._forward_hooks for block in backbone.model.encoder.layer)


def test_the_pooler_is_neither_trained_nor_lost(tiny_bert, tmp_path):
    backbone = Backbone.load(tiny_bert)
    backbone(some_tokens(), (1, 4))[1].sum().backward()
    trainable = {name: value for name, value in backbone.named_parameters() if value.requires_grad}
    assert not any("pooler" in name for name in trainable)
    assert all(value.grad is not None for value in trainable.values())
    backbone.save(tmp_path, 2)
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny_bert, tmp_path))
    assert torch.equal(before["pooler.dense.weight"], after["pooler.dense.weight"])
    assert backbone.cut(1).pooler is not None
    assert backbone.model.pooler is None


def test_a_folder_without_a_pooler_gets_none(tiny_bert, tmp_path):
    weights = load_file(tiny_bert / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("pooler")}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text((tiny_bert / "config.json").read_text())
    before = torch.get_rng_state()
    backbone = Backbone.load(tmp_path)
    assert torch.equal(before, torch.get_rng_state())
    assert backbone.pooler is None
    backbone.save(tmp_path / "again", 4)
    assert load_file(tmp_path / "again" / "model.safetensors").keys() == kept.keys()


def test_missing_weights_are_refused(tiny_bert, tmp_path):
    weights = load_file(tiny_bert / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("encoder.layer.3")}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text((tiny_bert / "config.json").read_text())
    with pytest.raises(InputError, match=r"lacks 16 weights of its 4 blocks, among them 'encoder\.layer\.3"):
        Backbone.load(tmp_path)


def test_a_broken_weights_file_is_refused(tiny_bert, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    (tmp_path / "config.json").write_text((tiny_bert / "config.json").read_text())
    with pytest.raises(InputError, match="the weights beside it have 11 bytes"):
        Backbone.load(tmp_path)


def test_an_unknown_model_type_is_refused(tmp_path):
    CONFIG_MAPPING["bloom"]().save_pretrained(tmp_path)
    with pytest.raises(
        InputError, match=r"model type 'bloom' is not supported; supported are albert, .*xlm-rob"
    ):
        Backbone.load(tmp_path)


def test_a_decoder_is_refused():
    with pytest.raises(InputError, match="configured as a decoder"):
        Backbone(tiny_model(BertConfig(**tiny_config("bert", is_decoder=True).to_dict())))


def gradients(backbone: Backbone, tokens: Inputs) -> tuple[list[Tensor], dict[str, Tensor]]:
    backbone.zero_grad()
    states = backbone(tokens, (1, 3))
    weights = torch.linspace(-1, 1, 32, dtype=states[0].dtype)
    sum(((state[tokens.mask] @ weights) ** 2).sum() for state in states).backward()
    grads = {name: value.grad for name, value in backbone.named_parameters() if value.grad is not None}
    return [state.detach() for state in states], grads


CALM = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
DROPOUT = {"bert": CALM, "roberta": CALM, "distilbert": {"dropout": 0.0, "attention_dropout": 0.0}}


@pytest.mark.parametrize(
    "kind", ["bert", "roberta", "distilbert", "modernbert", "llama", "qwen3", "mistral", "gemma3_text"]
)
def test_gradient_checkpointing_changes_no_gradient(kind):
    attention = "bidirectional" if kind in DECODERS else None
    backbone = backbone_of(kind, attention, **DROPOUT.get(kind, {})).double().train()
    tokens = some_tokens(pad=backbone.model.config.pad_token_id, left=kind in DECODERS)
    states, plain = gradients(backbone, tokens)
    runs: list[object] = []
    handles = [
        next(part for part in block.modules() if isinstance(part, nn.Linear)).register_forward_pre_hook(
            lambda *_: runs.append(1)
        )
        for block in backbone.blocks
    ]
    backbone.gradient_checkpointing(True)
    again, recomputed = gradients(backbone, tokens)
    assert plain.keys() == recomputed.keys()
    for one, other in zip([*states, *plain.values()], [*again, *recomputed.values()], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
    assert len(runs) == 6, "three blocks forward, and again in backward"
    for handle in handles:
        handle.remove()
    backbone.gradient_checkpointing(False)
    assert gradients(backbone, tokens)[1].keys() == plain.keys()


def test_gradient_checkpointing_reaches_blocks_above_frozen_embeddings():
    backbone = backbone_of("bert").train()
    backbone.model.embeddings.requires_grad_(False)
    backbone.gradient_checkpointing(True)
    backbone(some_tokens(), (4,))[0].sum().backward()
    assert all(value.grad is not None for value in backbone.model.encoder.parameters())


def test_gradient_checkpointing_keeps_the_inside_of_blocks_out_of_memory():
    backbone = backbone_of("bert").train()

    def saved_bytes() -> int:
        sizes: list[int] = []

        def note(tensor: Tensor) -> Tensor:
            sizes.append(tensor.numel() * tensor.element_size())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            backbone(some_tokens(), (1, 4))
        return sum(sizes)

    whole = saved_bytes()
    backbone.gradient_checkpointing(True)
    assert saved_bytes() < whole / 3


@pytest.mark.parametrize("checkpointing", [False, True])
def test_no_state_outlives_its_step(checkpointing):
    backbone = backbone_of("bert").train()
    backbone.gradient_checkpointing(checkpointing)
    states = backbone(some_tokens(), (1, 2, 4))
    held = [weakref.ref(state) for state in states]
    sum(state.sum() for state in states).backward()
    del states
    gc.collect()
    assert [reference() for reference in held] == [None, None, None]


def test_gradient_checkpointing_that_a_family_lacks_is_refused():
    backbone = backbone_of("mpnet")
    with pytest.raises(InputError, match="'mpnet' has no gradient checkpointing"):
        backbone.gradient_checkpointing(True)


def test_loading_an_attention_that_is_not_there_says_so(tmp_path):
    model = tiny_model(tiny_config("mpnet"))
    model.save_pretrained(tmp_path)
    assert Backbone.load(tmp_path).model.config._attn_implementation == "eager"
    with pytest.raises(InputError, match="does not support an attention implementation"):
        Backbone.load(tmp_path, attn_implementation="sdpa")


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
    tokens = some_tokens()
    causal = Backbone.load(tmp_path / "whole")
    torch.testing.assert_close(
        causal(tokens, (2,))[0][tokens.mask], own_states(whole, tokens), rtol=0, atol=1e-6
    )
    backbone.save(tmp_path / "text", 1)
    loaded = AutoModel.from_pretrained(tmp_path / "text")
    assert loaded.config.model_type == "gemma3_text"
    state = backbone(tokens, (1,))[0][tokens.mask]
    torch.testing.assert_close(own_states(loaded, tokens), state, rtol=0, atol=1e-6)
