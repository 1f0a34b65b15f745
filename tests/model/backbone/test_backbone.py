import gc
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, BertConfig, PreTrainedConfig, PreTrainedModel

from embedtrain.model.backbone.backbone import Backbone
from embedtrain.model.backbone.families import FAMILIES
from embedtrain.model.backbone.loading import loader
from embedtrain.types import InputError, Inputs

VOCABULARY = 96
ALL = (0, 1, 2, 3, 4)


def tiny_config(model_type: str, **changes: object) -> PreTrainedConfig:
    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 40,
        "pad_token_id": 1 if FAMILIES[model_type].positions == "after_padding" else 0,
        "bos_token_id": 2,
        "eos_token_id": 3,
    }
    if model_type == "distilbert":
        names = {"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"}
        settings = {names.get(key, key): value for key, value in settings.items()}
        settings["hidden_dim"] = settings.pop("intermediate_size")
    if FAMILIES[model_type].decoder and model_type != "gpt2":
        settings |= {"num_key_value_heads": 2, "head_dim": 8}
    relative = {
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "position_buckets": 8,
        "conv_kernel_size": 3,
        "conv_act": "gelu",
        "norm_rel_ebd": "layer_norm",
    }
    settings |= {
        "albert": {"embedding_size": 16},
        "deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 40},
        "deberta-v2": relative,
        "electra": {"embedding_size": 16},
        "eurobert": {"num_key_value_heads": 4, "mask_token_id": 4},
        "gemma2": {"query_pre_attn_scalar": 8, "sliding_window": 6},
        "gemma3_text": {"query_pre_attn_scalar": 8, "sliding_window": 6, "sliding_window_pattern": 3},
        "mistral": {"sliding_window": 6},
        "qwen2": {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 2},
        "modernbert": {"local_attention": 8, "cls_token_id": 2, "sep_token_id": 3},
    }.get(model_type, {})
    return CONFIG_MAPPING[model_type](**settings | changes)


def tiny(config: PreTrainedConfig) -> PreTrainedModel:
    """Random weights, norms and biases included, so that a forgotten norm or bias shows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        kind = loader(config)
        model = kind.from_config(config) if hasattr(kind, "from_config") else kind(config)
        for parameter in model.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    return model.eval()


def some_tokens(pad: int, left: bool = False) -> Inputs:
    generator = torch.Generator().manual_seed(0)
    lengths = (20, 12, 3)
    ids = torch.full((3, 20), pad)
    mask = torch.zeros(3, 20, dtype=torch.bool)
    for row, length in enumerate(lengths):
        columns = slice(20 - length, 20) if left else slice(0, length)
        ids[row, columns] = torch.randint(5, VOCABULARY, (length,), generator=generator)
        mask[row, columns] = True
    return Inputs(ids, mask, torch.zeros(3, dtype=torch.int64))


def own_states(model: PreTrainedModel, tokens: Inputs) -> Tensor:
    return model(input_ids=tokens.values, attention_mask=tokens.mask.long()).last_hidden_state[tokens.mask]


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
@torch.no_grad()
def test_each_state_is_that_of_the_physically_cut_model(model_type, tmp_path):
    model = tiny(tiny_config(model_type))
    tokens = some_tokens(model.config.pad_token_id)
    whole = own_states(model, tokens)
    backbone = Backbone(model)
    states = backbone(tokens, ALL)
    torch.testing.assert_close(states[4][tokens.mask], whole, rtol=0, atol=1e-6)
    for layer in (1, 2, 3, 4):
        cut = backbone.cut(layer)
        assert cut.config.num_hidden_layers == layer
        torch.testing.assert_close(own_states(cut, tokens), states[layer][tokens.mask], rtol=0, atol=1e-6)
    backbone.save(tmp_path, 2)
    loaded, info = loader(model.config).from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    torch.testing.assert_close(own_states(loaded.eval(), tokens), states[2][tokens.mask], rtol=0, atol=1e-6)


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
@torch.no_grad()
def test_padding_side_does_not_matter(model_type):
    model = tiny(tiny_config(model_type))
    pad = model.config.pad_token_id
    backbone = Backbone(model)
    right, left = some_tokens(pad), some_tokens(pad, left=True)
    rounding = 1e-4 if "t5" in model_type else 1e-5  # T5 does not scale the products of its attention
    for one, other in zip(backbone(right, ALL), backbone(left, ALL), strict=True):
        torch.testing.assert_close(one[right.mask], other[left.mask], rtol=0, atol=rounding)


@pytest.mark.parametrize("model_type", ["bert", "roberta", "mpnet"])
@torch.no_grad()
def test_what_stands_in_the_padding_does_not_matter(model_type):
    model = tiny(tiny_config(model_type))
    backbone = Backbone(model)
    tokens = some_tokens(model.config.pad_token_id)
    other = tokens._replace(values=torch.where(tokens.mask, tokens.values, 7))
    for one, two in zip(backbone(tokens, ALL), backbone(other, ALL), strict=True):
        torch.testing.assert_close(one[tokens.mask], two[tokens.mask], rtol=0, atol=1e-5)


@torch.no_grad()
def test_final_norm_is_on_every_state_of_a_prenorm_model():
    model = tiny(tiny_config("modernbert"))
    tokens = some_tokens(0)
    blocks_out: list[Tensor] = []
    handles = [
        block.register_forward_hook(lambda _block, _args, output: blocks_out.append(output))
        for block in model.layers
    ]
    own_states(model, tokens)
    for handle in handles:
        handle.remove()
    states = Backbone(model)(tokens, (1, 2, 3, 4))
    for raw, state in zip(blocks_out, states, strict=True):
        torch.testing.assert_close(model.final_norm(raw), state)
        assert not torch.allclose(raw, state, atol=0.1)


def test_modernbert_cut_keeps_which_blocks_are_global():
    backbone = Backbone(tiny(tiny_config("modernbert")))
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
    backbone = Backbone(tiny(tiny_config(model_type)))
    calls, _ = block_calls(backbone)
    backbone(some_tokens(0), (2, 1))
    assert calls == [1, 2]
    calls.clear()
    backbone(some_tokens(0), (0,))
    assert calls == []
    calls.clear()
    backbone(some_tokens(0), (4, 1))
    assert calls == [1, 2, 3, 4]
    assert backbone.num_layers == len(block_calls(backbone)[1]) == 4


@torch.no_grad()
def test_states_come_in_the_order_asked_for_and_do_not_depend_on_the_others():
    backbone = Backbone(tiny(tiny_config("modernbert")))
    tokens = some_tokens(0)
    mixed = backbone(tokens, (3, 0, 1))
    for layer, state in zip((3, 0, 1), mixed, strict=True):
        torch.testing.assert_close(backbone(tokens, (layer,))[0], state, rtol=0, atol=1e-6)


@pytest.mark.parametrize("layers", [(), (5,), (-1, 2)])
def test_a_layer_out_of_range_is_refused(layers):
    with pytest.raises(ValueError, match=r"layers must be in 0\.\.4 and not empty"):
        Backbone(tiny(tiny_config("bert")))(some_tokens(0), layers)


@pytest.mark.parametrize("layer", [0, 5])
def test_a_cut_out_of_range_is_refused(layer, tmp_path):
    backbone = Backbone(tiny(tiny_config("bert")))
    with pytest.raises(ValueError, match=r"layer must be in 1\.\.4"):
        backbone.cut(layer)
    with pytest.raises(ValueError, match=r"layer must be in 1\.\.4"):
        backbone.save(tmp_path, layer)


def test_an_error_inside_leaves_the_backbone_whole():
    backbone = Backbone(tiny(tiny_config("bert")))
    with pytest.raises(IndexError):
        backbone(some_tokens(0)._replace(values=torch.full((3, 20), 9999)), (2, 1))
    assert len(backbone.model.encoder.layer) == 4
    assert all(not block._forward_hooks for block in backbone.model.encoder.layer)


def test_the_pooler_is_neither_trained_nor_lost(tiny_bert, tmp_path):
    backbone = Backbone.load(tiny_bert)
    backbone(some_tokens(0), (1, 4))[1].sum().backward()
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
    with pytest.raises(InputError, match="cannot load the Hugging Face model"):
        Backbone.load(tmp_path)


def test_an_unknown_model_type_is_refused(tmp_path):
    CONFIG_MAPPING["bloom"]().save_pretrained(tmp_path)
    with pytest.raises(
        InputError, match=r"model type 'bloom' is not supported; supported are albert, .*xlm-rob"
    ):
        Backbone.load(tmp_path)


def test_a_decoder_is_refused():
    with pytest.raises(InputError, match="configured as a decoder"):
        Backbone(tiny(BertConfig(**tiny_config("bert", is_decoder=True).to_dict())))


def gradients(backbone: Backbone, tokens: Inputs) -> tuple[list[Tensor], dict[str, Tensor]]:
    backbone.zero_grad()
    states = backbone(tokens, (1, 3))
    weights = torch.linspace(-1, 1, 32, dtype=states[0].dtype)
    sum(((state[tokens.mask] @ weights) ** 2).sum() for state in states).backward()
    grads = {name: value.grad for name, value in backbone.named_parameters() if value.grad is not None}
    return [state.detach() for state in states], grads


@pytest.mark.parametrize("model_type", ["bert", "modernbert", "distilbert", "roberta"])
def test_gradient_checkpointing_changes_no_gradient(model_type):
    dropout = {"dropout": 0.0, "attention_dropout": 0.0} if model_type == "distilbert" else {}
    if model_type in ("bert", "roberta"):
        dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    backbone = Backbone(tiny(tiny_config(model_type, **dropout)).double()).train()
    tokens = some_tokens(backbone.model.config.pad_token_id)
    states, plain = gradients(backbone, tokens)
    calls, handles = block_calls(backbone)
    backbone.gradient_checkpointing(True)
    again, recomputed = gradients(backbone, tokens)
    assert plain.keys() == recomputed.keys()
    for one, other in zip([*states, *plain.values()], [*again, *recomputed.values()], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
    assert calls[:3] == [1, 2, 3]
    for handle in handles:
        handle.remove()
    backbone.gradient_checkpointing(False)
    assert gradients(backbone, tokens)[1].keys() == plain.keys()


def test_gradient_checkpointing_reaches_blocks_above_frozen_embeddings():
    backbone = Backbone(tiny(tiny_config("bert"))).train()
    backbone.model.embeddings.requires_grad_(False)
    backbone.gradient_checkpointing(True)
    backbone(some_tokens(0), (4,))[0].sum().backward()
    assert all(value.grad is not None for value in backbone.model.encoder.parameters())


def test_gradient_checkpointing_keeps_the_inside_of_blocks_out_of_memory():
    backbone = Backbone(tiny(tiny_config("bert"))).train()

    def saved_bytes() -> int:
        sizes: list[int] = []

        def note(tensor: Tensor) -> Tensor:
            sizes.append(tensor.numel() * tensor.element_size())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            backbone(some_tokens(0), (1, 4))
        return sum(sizes)

    whole = saved_bytes()
    backbone.gradient_checkpointing(True)
    assert saved_bytes() < whole / 3


@pytest.mark.parametrize("checkpointing", [False, True])
def test_no_state_outlives_its_step(checkpointing):
    backbone = Backbone(tiny(tiny_config("bert"))).train()
    backbone.gradient_checkpointing(checkpointing)
    states = backbone(some_tokens(0), (1, 2, 4))
    held = [weakref.ref(state) for state in states]
    sum(state.sum() for state in states).backward()
    del states
    gc.collect()
    assert [reference() for reference in held] == [None, None, None]


def test_gradient_checkpointing_that_a_family_lacks_is_refused():
    backbone = Backbone(tiny(tiny_config("mpnet")))
    with pytest.raises(InputError, match="'mpnet' has no gradient checkpointing"):
        backbone.gradient_checkpointing(True)


def test_loading_an_attention_that_is_not_there_says_so(tmp_path: Path):
    model = tiny(tiny_config("mpnet"))
    model.save_pretrained(tmp_path)
    assert Backbone.load(tmp_path).model.config._attn_implementation == "eager"
    with pytest.raises(InputError, match="does not support an attention implementation"):
        Backbone.load(tmp_path, attn_implementation="sdpa")
