import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tiny_models import some_tokens
from torch import Tensor, nn
from transformers import AutoModel

from embedtrain.model.backbone.backbone import Backbone
from embedtrain.model.backbone.freezing import freeze, trainable_names
from embedtrain.model.backbone.lora import (
    adapter_state,
    add_lora,
    has_lora,
    load_adapter,
    load_adapter_state,
    save_adapter,
)
from embedtrain.types import InputError, Inputs

FOLDERS = ("tiny_bert", "tiny_modernbert", "tiny_llama", "tiny_gemma3")
LINEAR = {"tiny_bert": 6, "tiny_modernbert": 4, "tiny_llama": 7, "tiny_gemma3": 7}  # in each block


def trained(backbone: Backbone) -> Backbone:
    """As if training had moved every adapter weight."""
    draw = torch.Generator().manual_seed(1)
    for name, value in backbone.named_parameters():
        if "lora_" in name:
            noise = torch.randn(value.shape, generator=draw).to(value.dtype)
            value.data += 0.1 * noise
    return backbone.eval()


@torch.no_grad()
def states(backbone: Backbone, layers: tuple[int, ...] = (1, 4)) -> list[Tensor]:
    tokens = some_tokens((9, 4))
    return [state[tokens.mask] for state in backbone(tokens, layers)]


@torch.no_grad()
def own_states(model: nn.Module) -> Tensor:
    tokens = some_tokens((9, 4))
    return model(input_ids=tokens.values, attention_mask=tokens.mask.long()).last_hidden_state[tokens.mask]


@pytest.mark.parametrize("name", FOLDERS)
def test_adapters_change_nothing_until_trained_and_alone_are_trainable(name, request):
    backbone = Backbone.load(request.getfixturevalue(name))
    before = states(backbone)
    assert not has_lora(backbone)
    add_lora(backbone, rank=4)
    assert has_lora(backbone)
    assert all(torch.equal(one, other) for one, other in zip(before, states(backbone), strict=True))
    names = trainable_names(backbone)
    assert len(names) == 2 * 4 * LINEAR[name]  # A and B, four blocks
    assert all("lora_" in name for name in names)
    sum(state.square().sum() for state in backbone(some_tokens((9, 4)), (2, 4))).backward()
    assert sorted(key for key, value in backbone.named_parameters() if value.grad is not None) == sorted(
        names
    )
    assert any(
        not torch.allclose(one, other) for one, other in zip(before, states(trained(backbone)), strict=True)
    )


@pytest.mark.parametrize("flags", [{}, {"dora": True}, {"rslora": True}], ids=["lora", "dora", "rslora"])
@pytest.mark.parametrize("name", FOLDERS)
def test_what_is_saved_or_cut_is_merged_and_the_live_weights_are_untouched(name, flags, request, tmp_path):
    backbone = Backbone.load(request.getfixturevalue(name))
    add_lora(backbone, rank=4, alpha=8, **flags)
    trained(backbone)
    live = {key: value.clone() for key, value in backbone.state_dict().items()}
    modules = [type(part) for part in backbone.modules()]
    for layer in (2, 4):
        backbone.save(tmp_path / str(layer), layer)
        loaded, info = AutoModel.from_pretrained(tmp_path / str(layer), output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        (state,) = states(backbone, (layer,))
        for model in (loaded, backbone.cut(layer)):
            assert not any("lora" in key for key in model.state_dict())
            assert not hasattr(model, "peft_config")
            torch.testing.assert_close(own_states(model), state, rtol=1e-5, atol=1e-5)
    assert not list(tmp_path.rglob("adapter_*"))
    assert modules == [type(part) for part in backbone.modules()]
    assert live.keys() == backbone.state_dict().keys()
    assert all(torch.equal(value, live[key]) for key, value in backbone.state_dict().items())


def test_the_update_is_the_product_scaled_by_alpha_over_rank(tiny_llama):
    plain, rank_stable = (Backbone.load(tiny_llama) for _ in range(2))
    base = plain.model.layers[1].mlp.up_proj.weight.clone()
    add_lora(plain, rank=4, alpha=6)
    add_lora(rank_stable, rank=4, alpha=6, rslora=True)
    for backbone, scale in ((plain, 6 / 4), (rank_stable, 6 / 4**0.5)):
        state = adapter_state(trained(backbone))
        path = "base_model.model.layers.1.mlp.up_proj"
        update = state[f"{path}.lora_B.weight"] @ state[f"{path}.lora_A.weight"] * scale
        merged = backbone.cut(2).layers[1].mlp.up_proj.weight
        torch.testing.assert_close(merged, base + update, rtol=0, atol=1e-6)


def test_adapters_of_bfloat16_weights_are_float32_and_merge_with_one_rounding(tiny_llama):
    backbone = Backbone.load(tiny_llama, dtype=torch.bfloat16)
    base = backbone.model.layers[0].mlp.up_proj.weight.clone()
    add_lora(backbone, rank=4, alpha=4)
    state = adapter_state(trained(backbone))
    assert {value.dtype for value in state.values()} == {torch.float32}
    path = "base_model.model.layers.0.mlp.up_proj"
    update = state[f"{path}.lora_B.weight"] @ state[f"{path}.lora_A.weight"]
    merged = backbone.cut(1).layers[0].mlp.up_proj.weight
    assert torch.equal(merged, (base.float() + update).bfloat16())
    assert backbone(some_tokens((9, 4)), (4,))[0].dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["tiny_bert", "tiny_gemma3"])
@pytest.mark.parametrize("targets", [None, r"\.[13]\..*(q_proj|query)"])
def test_peft_loads_the_saved_adapters_on_the_base_model(name, targets, request, tmp_path):
    folder = request.getfixturevalue(name)
    backbone = Backbone.load(folder)
    add_lora(backbone, rank=4, targets=targets)
    trained(backbone)
    save_adapter(backbone, tmp_path, str(folder))
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(folder)
    assert (settings["r"], settings["lora_alpha"]) == (4, 32)
    assert load_file(tmp_path / "adapter_model.safetensors").keys() == adapter_state(backbone).keys()
    model = PeftModel.from_pretrained(AutoModel.from_pretrained(folder), tmp_path)
    assert sum("lora_A" in key for key in model.state_dict()) == len(adapter_state(backbone)) / 2
    torch.testing.assert_close(own_states(model), states(backbone)[1], rtol=0, atol=1e-6)


def state_with_adapter(base: Path, adapter: Path, tokens: Inputs) -> Tensor:
    backbone = Backbone.load(base, attention="bidirectional")
    load_adapter(backbone, adapter)
    return backbone.eval()(tokens, (4,))[0].detach()


def test_another_process_reads_the_adapters_to_equal_states(tiny_llama, tmp_path, processes):
    backbone = Backbone.load(tiny_llama, attention="bidirectional")
    add_lora(backbone, rank=4, dora=True)
    save_adapter(trained(backbone), tmp_path / "adapter", str(tiny_llama))
    given = (tiny_llama, tmp_path / "adapter", some_tokens((9, 4)))
    found = processes.result(Path(__file__), "state_with_adapter", *given)
    assert torch.equal(found, backbone(some_tokens((9, 4)), (4,))[0])


def test_loaded_adapters_train_on(tiny_llama, tmp_path):
    backbone = Backbone.load(tiny_llama)
    add_lora(backbone, rank=4, targets="q_proj")
    save_adapter(trained(backbone), tmp_path, "anywhere")
    again = Backbone.load(tiny_llama)
    load_adapter(again, tmp_path)
    assert trainable_names(again) == trainable_names(backbone)
    assert torch.equal(states(again)[1], states(backbone)[1])
    state = {key: value.clone() for key, value in adapter_state(backbone).items()}
    third = Backbone.load(tiny_llama)
    add_lora(third, rank=4, targets="q_proj")
    load_adapter_state(third, state)
    assert torch.equal(states(third)[1], states(backbone)[1])


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", ["tiny_bert", "tiny_llama"])
def test_gradients_reach_adapters_above_frozen_embeddings(name, checkpointing, request):
    gradients = []
    for recompute in (False, checkpointing):
        backbone = Backbone.load(request.getfixturevalue(name), dtype=torch.float64)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            add_lora(backbone, rank=4)
        trained(backbone)
        freeze(backbone, embeddings=True, first_blocks=1)
        backbone.gradient_checkpointing(recompute)
        backbone.train().apply(lambda part: setattr(part, "p", 0.0) if isinstance(part, nn.Dropout) else None)
        backbone(some_tokens((9, 4)), (3, 4))[0].square().sum().backward()
        gradients.append(
            {key: value.grad for key, value in backbone.named_parameters() if value.grad is not None}
        )
    assert gradients[0].keys() == gradients[1].keys()
    assert len(gradients[0]) == 2 * 2 * LINEAR[name]  # blocks 2 and 3
    for key, value in gradients[0].items():
        torch.testing.assert_close(value, gradients[1][key], rtol=0, atol=1e-10)


def test_targets_choose_layers_by_regular_expression(tiny_llama):
    backbone = Backbone.load(tiny_llama)
    add_lora(backbone, rank=2, targets=r"layers\.[23]\.self_attn\.(q|v)_proj")
    found = {name.partition(".lora_")[0] for name in trainable_names(backbone.model)}
    assert found == {f"layers.{block}.self_attn.{part}_proj" for block in (2, 3) for part in "qv"}


def test_targets_that_match_nothing_name_the_nearest(tiny_llama, tiny_bert):
    with pytest.raises(
        InputError,
        match=r"targets 'q_porj' matches none .*they are self_attn\.q_proj, .*inside layers\.0 to layers\.3",
    ):
        add_lora(Backbone.load(tiny_llama), targets="q_porj")
    with pytest.raises(InputError, match=r"they are attention\.self\.query, .*inside encoder\.layer\.0"):
        add_lora(Backbone.load(tiny_bert), targets="qeury|valeu_")
    with pytest.raises(InputError, match=r"'q_proj\(' is not a regular expression"):
        add_lora(Backbone.load(tiny_llama), targets="q_proj(")


@pytest.mark.parametrize("settings", [{"rank": 0}, {"alpha": 0}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_settings_out_of_range_are_refused(settings, tiny_llama):
    with pytest.raises(InputError, match="lora needs rank >= 1, alpha > 0 and dropout in"):
        add_lora(Backbone.load(tiny_llama), **settings)


def test_adapters_that_do_not_fit_are_refused(tiny_llama, tiny_bert, tmp_path):
    backbone = Backbone.load(tiny_llama)
    with pytest.raises(InputError, match="no LoRA adapters to save"):
        save_adapter(backbone, tmp_path, "base")
    add_lora(backbone, rank=4)
    with pytest.raises(InputError, match="has LoRA adapters already"):
        add_lora(backbone)
    save_adapter(backbone, tmp_path, "base")
    with pytest.raises(InputError, match="do not fit this backbone"):
        load_adapter(Backbone.load(tiny_bert), tmp_path)
    other = Backbone.load(tiny_llama)
    add_lora(other, rank=8)
    with pytest.raises(InputError, match=r"56 weights differ, among them 'base_model\.model\.layers\.0"):
        load_adapter_state(other, adapter_state(backbone))
    with pytest.raises(InputError, match=r"is not a folder of LoRA adapters: it needs adapter_config\.json"):
        load_adapter(Backbone.load(tiny_llama), tmp_path / "nowhere")


def test_without_peft_the_pip_line_is_shown(tiny_llama, monkeypatch):
    backbone = Backbone.load(tiny_llama)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs the package peft: pip install 'embedtrain\[llm\]'"):
        add_lora(backbone)
