"""Runs whose vectors are rotated: started once, trained in any plan, resumed exactly, alike on any ranks."""

import pytest
import torch
from processes import finish
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from small_runs import (
    assert_close_weights,
    assert_same_run,
    compose,
    read_rows,
    train,
    train_stopped,
    without,
    write_rows,
)  # fmt: skip

from embedtrain.files.measured.weights import read_weights
from embedtrain.model.folder.export import load_encoder
from embedtrain.model.rotation.rotation import FILE
from embedtrain.model.rotation.starts import principal_axes
from embedtrain.run.run import Run
from embedtrain.types import InputError, SubModel

ROTATED = "rotation=householder rotation.start=pca rotation.sample=12".split()
SHORT = "data.batch_size=4 trainer.max_steps=4 trainer.checkpoint_every_n_steps=1 data.validation_rows=8"


@pytest.fixture
def words(small_run, tmp_path):
    return [*small_run, *SHORT.split(), f"output_root={tmp_path}"]


def matrices(folder):
    return load_file(folder / FILE)


def test_stopping_changes_nothing(words, tmp_path):
    drawn = [*without(words, "plan.pairs"), *ROTATED, *"plan=random2d plan.dims=[8,16,32]".split()]
    drawn += ["exports=[[2,8]]"]
    run = train([*drawn, "name=whole"])
    for stop in (1, 3):
        train_stopped([*drawn, f"name=stopped_{stop}"], stop)
        assert_same_run(tmp_path / f"stopped_{stop}", tmp_path / "whole")
    rotation = run.encoder.rotation
    assert rotation.layers == (1, 2, 3, 4)
    begun = Run(compose([*drawn, "name=begun"])).encoder.rotation
    assert not torch.equal(rotation.vectors, begun.vectors)
    for name, matrix in matrices(tmp_path / "whole/model").items():
        assert (matrix.double() @ matrix.double().T - torch.eye(32)).abs().max() < 1e-6, name
    shapes = {name: tuple(matrix.shape) for name, matrix in matrices(tmp_path / "whole/cut_L2_D8").items()}
    assert shapes == {"layer_1": (8, 32), "layer_2": (8, 32)}


def test_principal_axes_are_those_of_the_vectors_that_training_begins_with(words, tmp_path):
    run = train([*words, "name=axes", "rotation=pca", "rotation.sample=1000"])
    untouched = run.starting_encoder()
    rows, sides = [row for _, row in run.stage.data.training_rows()], []
    for role, texts in (
        ("query", [row.query for row in rows]),
        ("document", [row.positives[0] for row in rows]),
    ):
        sides.append(untouched.encode(list(dict.fromkeys(texts)), (2,), role).values[0])
    expected = principal_axes(torch.cat(sides))
    shares = expected @ matrices(tmp_path / "axes/model")["layer_2"].double().T  # near 1 on the diagonal
    assert shares.diagonal()[:8].min() > 0.999
    assert not list(run.encoder.rotation.parameters())


def test_a_free_map_trains_and_goes_on(words, tmp_path):
    free = [*words, "rotation=linear", "rotation.last=identity", "rotation.sample=12", "rotation.lr=1e-2"]
    run = train([*free, "name=whole"])
    train_stopped([*free, "name=stopped"], 2)
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")
    found, begun = matrices(tmp_path / "whole/model"), torch.eye(32)
    moved = {name: float((matrix - begun).abs().max()) for name, matrix in found.items()}
    assert (
        1e-3 < moved["layer_4"] < 0.1 < moved["layer_2"]
    )  # the last began as the identity, as axes the other
    assert run.encoder.rotation.base.requires_grad


def test_a_free_map_leaves_the_last_layer_of_the_backbone_as_it_is(words, tmp_path):
    free = ["rotation=linear", "rotation.sample=12"]
    run = train([*words, *free, "name=a"])
    assert matrices(tmp_path / "a/model").keys() == {"layer_1", "layer_2"}
    assert not torch.equal(matrices(tmp_path / "a/model")["layer_2"], torch.eye(32))
    texts, whole = ["a cat sleeps", "bird"], SentenceTransformer(str(tmp_path / "a/model"), device="cpu")
    expected = run.encoder.encode(texts, (4,), "query").at(SubModel(4, 32))
    torch.testing.assert_close(torch.from_numpy(whole.encode(texts)), expected, rtol=0, atol=1e-5)
    train([*words, "name=first", "rotation=random", "optim.lr=1e-9"])
    model = tmp_path / "first/model"
    train([*words, *free, "name=more", f"backbone.path={model}", "optim.lr=1e-9", "rotation.lr=1e-9"])
    more = matrices(tmp_path / "more/model")["layer_4"]
    torch.testing.assert_close(more, matrices(model)["layer_4"], rtol=0, atol=1e-5)
    alone = [*without(words, "plan.pairs"), "plan=dims", "plan.dims=[8,32]", *free, "name=alone"]
    with pytest.raises(InputError, match=r"say rotation\.last=identity"):
        Run(compose(alone))
    Run(compose([*alone, "rotation.last=identity"]))


def test_a_start_waits_for_a_stage_that_trains_vectors(words, tmp_path):
    lines = [{"text": f"the cat {n} sleeps on the mat"} for n in range(16)]
    texts = write_rows(tmp_path / "texts.jsonl", lines)
    masked = f"{{name: masked, step: masked, plan: full, data: {{train: {texts}, validation_rows: null}}}}"
    run = train([*words, *ROTATED, "name=staged", f"stages=[{masked},{{name: pairs}}]"])
    checkpoint = tmp_path / "staged/stages/1_masked/checkpoints/last.ckpt"
    first = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert not first["encoder.rotation.is_started"]
    assert run.encoder.rotation.is_started
    assert run.encoder.rotation.layers == tuple(sorted({sub.layer for sub in run.sub_models} | {4}))


def test_two_ranks_rotate_as_one(processes, words, calm, tmp_path):
    """A large `eps`: Adam makes steps of the rounding of gradients that are near 0."""
    given = [*words, *ROTATED, f"backbone.path={calm}", "trainer=cpu", "gradcache=chunks", "optim.eps=0.01"]
    finish(*processes.ranks("train", [*given, "name=two", "trainer.devices=2"]))
    finish(processes.command("train", [*given, "name=one"]))
    assert_close_weights(tmp_path / "two", tmp_path / "one")
    one, two = (matrices(tmp_path / name / "model") for name in ("one", "two"))
    for name, matrix in one.items():
        torch.testing.assert_close(two[name], matrix, rtol=0, atol=1e-5)


def test_weights_json_compares_weights_and_not_axes(words, tmp_path):
    train([*words, "name=random", "rotation=random", "optim.lr=1e-9"])
    cuts = read_weights(tmp_path / "random").cuts
    assert min(cut.cosine for cut in cuts) > 0.999


def test_a_rotated_model_is_trained_on(words, tmp_path):
    train([*words, "name=first", "rotation=random"])
    model = tmp_path / "first/model"
    train([*words, "name=fixed", f"backbone.path={model}"])
    assert matrices(tmp_path / "fixed/model").keys() == matrices(model).keys()
    for name, matrix in matrices(model).items():
        assert torch.equal(matrices(tmp_path / "fixed/model")[name], matrix)
    train([*words, "name=more", f"backbone.path={model}", "rotation=householder"])
    assert load_encoder(tmp_path / "more/model").rotation.layers == load_encoder(model).rotation.layers


def test_the_learning_rate_is_logged_of_the_others(words, tmp_path):
    train([*words, *ROTATED, "name=rates", "trainer.log_every_n_steps=1", "optim.lr=1e-4", "optim.warmup=0"])
    assert read_rows(tmp_path / "rates/metrics.jsonl")[0]["train/lr"] == pytest.approx(1e-4)


def test_a_mistake_is_named(words):
    with pytest.raises(InputError, match="rotation: reflections must be an even number of 2 or more, got 5"):
        Run(compose([*words, "name=x", "rotation=householder", "rotation.reflections=5"]))
