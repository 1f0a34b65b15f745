from types import SimpleNamespace

import pytest
import torch
from small_runs import compose, without
from torch import nn

from embedtrain.run.run import Run
from embedtrain.training.module import TrainModule
from embedtrain.training.optim import AdamW, check_precision, decay_groups
from embedtrain.training.trainer import auto_precision
from embedtrain.types import InputError


def test_only_matrices_decay():
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    module.register_parameter("temperature", nn.Parameter(torch.tensor(0.1)))
    module.register_parameter("frozen", nn.Parameter(torch.ones(2, 2), requires_grad=False))
    decayed, kept = decay_groups(module.named_parameters())
    assert [tuple(p.shape) for p in decayed] == [(4, 3)]
    assert sorted(tuple(p.shape) for p in kept) == [(), (4,), (4,), (4,)]


def test_optimizer_carries_the_settings():
    optimizer = AdamW(lr=1e-3, weight_decay=0.2).optimizer(nn.Linear(2, 2))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.2, 0.0]
    assert {group["lr"] for group in optimizer.param_groups} == {1e-3}


def test_one_pass_takes_the_same_steps():
    taken = []
    for fused in (False, True):
        torch.manual_seed(0)
        module = nn.Linear(30, 20)
        optimizer = AdamW(lr=1e-2, weight_decay=0.1).optimizer(module, fused=fused)
        assert bool(optimizer.defaults["fused"]) == fused
        for _ in range(20):
            module(torch.randn(8, 30)).square().sum().backward()
            optimizer.step()
        taken.append(module.weight.detach())
    torch.testing.assert_close(*taken, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("scaler", "mesh", "fused"), [(None, None, True), (object(), None, None), (None, object(), None)]
)
def test_no_scaler_and_no_share_of_weights_meets_one_pass(scaler, mesh, fused):
    """Lightning would clip gradients that are still scaled, and one pass cannot take shares."""
    step = SimpleNamespace(module=None)
    module = TrainModule(nn.Linear(3, 2), step, SimpleNamespace(sub_models=()), AdamW(), total_steps=2)
    module._trainer = SimpleNamespace(precision_plugin=SimpleNamespace(scaler=scaler))
    module._device_mesh = mesh
    assert module.configure_optimizers()["optimizer"].defaults["fused"] == fused


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_the_rate_rises_then_falls_to_its_last_share(schedule):
    optim = AdamW(warmup=0.1, schedule=schedule, final_lr_share=0.1)
    shares = [optim.share(step, 100) for step in range(101)]
    assert shares[:10] == sorted(shares[:10])
    assert max(shares) == shares[10] == 1.0
    assert shares[10:] == sorted(shares[10:], reverse=True)
    assert shares[100] == pytest.approx(0.1)


def test_warmup_of_one_or_more_counts_steps():
    optim = AdamW(warmup=4, schedule="constant")
    assert [round(optim.share(step, 100), 3) for step in range(6)] == [0.2, 0.4, 0.6, 0.8, 1.0, 1.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": 0}, "lr must be above 0, got 0"),
        ({"layer_decay": 0}, "layer_decay must be above 0 and at most 10, got 0"),
        ({"warmup": -1}, "warmup must be a share below 1 or a number of steps, got -1"),
        ({"schedule": "cosin"}, "schedule must be cosine, linear or constant, got 'cosin'"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(InputError, match=message):
        AdamW(**settings)


@pytest.mark.parametrize(("amx", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_a_cpu_trains_in_bfloat16_where_it_is_fast_at_it(amx, precision, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert auto_precision("cpu") == precision


def moved(dtype, steps=100):
    """How far AdamW moves a weight of 0.05 at a usual rate."""
    weight = nn.Parameter(torch.full((1,), 0.05, dtype=dtype))
    optimizer = torch.optim.AdamW([weight], lr=2e-5, weight_decay=0.0)
    before = weight.item()
    for _ in range(steps):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    return before - weight.item()


def test_sixteen_bits_do_not_move_and_are_refused():
    assert moved(torch.float32) == pytest.approx(2e-3, rel=1e-2)
    assert moved(torch.bfloat16) == 0.0
    layer = nn.Linear(2, 2).bfloat16()
    with pytest.raises(InputError, match=r"weight would be trained in bfloat16.*backbone.dtype=float32"):
        check_precision(layer.named_parameters(), "bf16-mixed")
    check_precision(layer.requires_grad_(False).named_parameters(), "bf16-mixed")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["trainer.precision=bf16-true"], "use trainer.precision=bf16-mixed"),
        (["backbone.dtype=bfloat16"], "use backbone.dtype=float32"),
        (["backbone.dtype=bfloat16", "backbone.lora={rank: 2}"], None),
    ],
)
def test_a_run_of_sixteen_bits_is_refused_before_anything_is_written(
    changes, message, tiny_bert, small_data, tmp_path
):
    words = [
        "name=x", f"output_root={tmp_path}", f"backbone.path={tiny_bert}",
        f"data.train={small_data}/train.jsonl",
        "plan=full", "trainer=cpu", *changes,
    ]  # fmt: skip
    if message is None:
        Run(compose(words)).folder.release()
        return
    with pytest.raises(InputError, match=message):
        Run(compose(words))
    assert not (tmp_path / "x/config.yaml").exists()


def rates_of(words):
    """Names of the trained parameters of a run, and the rate and decay of each."""
    run = Run(compose(words))
    run.folder.release()
    module = run.stage.module
    names = {id(item): name for name, item in module.named_parameters()}
    return {
        names[id(item)]: (group["lr"], group["weight_decay"])
        for group in module.optim.optimizer(module).param_groups
        for item in group["params"]
    }


@pytest.fixture
def words(tiny_bert, small_data, tmp_path):
    given = f"name=x output_root={tmp_path} backbone.path={tiny_bert} data.train={small_data}/train.jsonl"
    return [*given.split(), "plan=full", "trainer=cpu", "optim.lr=1e-4", "pooling=latent_attention"]


@pytest.mark.parametrize("decay", [0.5, 2.0])
def test_each_block_has_a_rate_of_its_own(words, decay):
    found = rates_of([*words, f"optim.layer_decay={decay}"])
    parts = {"pooling.": 0, "embeddings.": 4, **{f"layer.{block}.": 3 - block for block in range(4)}}
    seen = set()
    for name, (rate, _) in found.items():
        (part,) = [part for part in parts if part in name]
        assert rate == pytest.approx(1e-4 * decay ** parts[part], rel=1e-12), name
        seen.add(part)
    assert seen == set(parts)
    plain = rates_of([*words, "name=plain"])
    assert {name: each[1] for name, each in found.items()} == {name: each[1] for name, each in plain.items()}
    assert {rate for rate, _ in plain.values()} == {1e-4}


def test_the_last_norm_has_the_rate_of_what_follows_the_blocks(words, tiny_llama):
    found = rates_of([*without(words, "backbone.path"), f"backbone.path={tiny_llama}", "optim.layer_decay=2"])
    (norm,) = [name for name in found if name.endswith("model.norm.weight")]
    assert found[norm][0] == pytest.approx(1e-4)


@pytest.mark.parametrize(("own", "rate"), [("", 0.01), ("rotation.lr=0.5", 0.5)])
def test_reflections_have_a_rate_of_their_own_and_never_decay(words, own, rate):
    found = rates_of([*words, "rotation=householder", *own.split()])
    assert found["encoder.rotation.vectors"] == (rate, 0.0)
    assert {each[0] for name, each in found.items() if "rotation" not in name} == {1e-4}


@pytest.mark.parametrize(("own", "rate"), [("", 1e-3), ("pooling.lr=0.5", 0.5)])
def test_queries_of_a_pooling_have_a_rate_of_their_own_and_never_decay(words, own, rate):
    words = [*without(words, "pooling"), "pooling=gated_mean", "optim.layer_decay=2", "rotation=linear"]
    words += ["rotation.last=identity"]
    found = rates_of([*words, *own.split()])
    assert found["encoder.pooling.queries"] == (rate, 0.0)
    assert found["encoder.rotation.base"] == (1e-3, 0.0)
    assert {each[0] for name, each in found.items() if "layer.3." in name} == {1e-4}


def test_layer_decay_needs_blocks():
    with pytest.raises(InputError, match=r"layer_decay needs a backbone of blocks: use optim.layer_decay=1"):
        AdamW(layer_decay=0.9).optimizer(nn.Linear(2, 2))
