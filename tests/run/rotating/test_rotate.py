"""embedtrain-rotate: weights stay, whole vectors keep their similarities, the best of each layer is taken."""

import json

import numpy as np
import pytest
import torch
from data_modules import example
from shipped import assert_shipped
from small_runs import command, write_rows

import embedtrain
from embedtrain.files.measured.rotated import read_rotated
from embedtrain.model.folder.export import load_encoder
from embedtrain.objective.losses.contrastive import InfoNCE
from embedtrain.objective.matryoshka import Objective
from embedtrain.run.rotating.candidates import Encoded, Training, best_of, fixed, scores_of, trained
from embedtrain.training.steps.contrastive.batch_loss import BatchLoss
from embedtrain.training.steps.contrastive.drawn import pair_batches
from embedtrain.types import Embeddings, InputError, SubModel

NAMES = ["as it is", "pca", "random", "trained from identity", "trained from pca", "trained from random"]
QUICK = ["epochs=2", "batch_size=8", "validation_rows=8"]


@pytest.fixture
def rows(tmp_path):
    kinds = "cat dog bird fish man woman child river".split()
    lines = [
        {"query": f"the {kind} {n} sleeps", "positive": f"a {kind} {n} in the sun"}
        for n in range(6)
        for kind in kinds
    ]
    return write_rows(tmp_path / "rows.jsonl", lines)


def test_the_best_of_each_layer_is_written(tiny_bert, rows, tmp_path, sentences, capsys):
    out = tmp_path / "out"
    command(
        "rotate", f"model={tiny_bert}", f"data={rows}", f"out={out}", "layers=[2,4]", "dims=[4,8]", *QUICK
    )
    assert f"rotated: {out}" in capsys.readouterr().out.replace("\n", "")
    found = read_rotated(out)
    assert (found.metric, found.dims, found.validation_rows) == ("ndcg_at_10", (4, 8), 8)
    assert [(tried.layer, tried.name) for tried in found.tried] == [
        (n, name) for n in (2, 4) for name in NAMES
    ]
    for layer in (2, 4):
        own = [tried for tried in found.tried if tried.layer == layer]
        (chosen,) = [tried for tried in own if tried.chosen]
        assert chosen.score == max(tried.score for tried in own) == pytest.approx(np.mean(chosen.scores))
    before, after = load_encoder(tiny_bert), load_encoder(out)
    for name, weight in before.backbone.model.state_dict().items():
        assert torch.equal(after.backbone.model.state_dict()[name], weight), name
    for layer in (1, 2, 3, 4):
        sub = SubModel(layer, 32)
        mine, theirs = (each.encode(sentences, (layer,)).at(sub) for each in (after, before))
        torch.testing.assert_close(mine @ mine.T, theirs @ theirs.T, rtol=0, atol=1e-5)
    command("export", f"model={out}", "layer=2", "dim=8", f"out={tmp_path}/cut")
    assert_shipped(tmp_path / "cut", after, sentences, SubModel(2, 8))


def test_rows_with_scores_choose_by_spearman_and_nothing_is_trained_for_0(tiny_bert, tmp_path):
    lines = [{"text1": f"a cat {n}", "text2": f"a dog {n % 3}", "score": n % 5 / 4} for n in range(18)]
    rows = write_rows(tmp_path / "scored.jsonl", lines)
    folder = embedtrain.rotate(
        tiny_bert, str(rows), tmp_path / "out", reflections=0, starts=["pca"], layers=[1]
    )
    found = json.loads((folder / "rotation.json").read_text("utf-8"))
    assert found["metric"] == "spearman"
    assert [tried["name"] for tried in found["tried"]] == ["as it is", "pca"]
    assert found["dims"] == [4, 8, 16, 32]


def test_training_moves_what_tells_texts_apart_into_the_first_coordinates(tiny_bert):
    """What a row's texts share lies in the last 4 of 32 coordinates, behind noise of the same size."""
    encoder, drawn = load_encoder(tiny_bert), np.random.default_rng(0)
    rows = [example(f"cat {n}", (f"dog {n}",)) for n in range(128)]
    batches = []
    for batch in pair_batches(rows, encoder, 32):
        values = torch.tensor(drawn.normal(size=(1, len(batch.links.content_ids), 32)), dtype=torch.float32)
        shared = torch.tensor(drawn.normal(size=(len(batch.links.query), 4)), dtype=torch.float32)
        values[0, batch.links.query, 28:] = values[0, batch.links.docs, 28:] = shared
        batches.append(Encoded(batch, Embeddings(values, (3,))))
    training, held_out = batches[:3], batches[3:]
    loss = BatchLoss(Objective(InfoNCE(), reduction="mean"), gather="none")
    how = Training(loss, loss, (4, 8), 8, 0.1, 40, 0)
    plain = fixed("identity", training, 0)
    maps = trained(plain, training, how)
    scores = {
        name: scores_of(own, held_out, (4, 8))[1] for name, own in (("plain", plain), ("trained", maps))
    }
    assert scores["trained"][SubModel(3, 4)] > scores["plain"][SubModel(3, 4)] + 0.2
    assert best_of(scores) == {3: "trained"}
    assert best_of({"plain": scores["plain"], "again": scores["plain"]}) == {3: "plain"}
    assert torch.equal(trained(plain, training, how)[3], maps[3])


def test_a_rotated_model_is_rotated_again_and_not_merged(tiny_bert, rows, tmp_path, sentences):
    given = {"reflections": 0, "layers": [4], "starts": ["pca", "random"]}
    first = embedtrain.rotate(tiny_bert, str(rows), tmp_path / "first", **given)
    again = embedtrain.rotate(first, str(rows), tmp_path / "again", **given | {"layers": [2]})
    before, after = (load_encoder(folder) for folder in (first, again))
    expected = before.encode(sentences, (4,)).at(SubModel(4, 8))
    found = after.encode(sentences, (4,)).at(SubModel(4, 8))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert before.rotation is not None
    with pytest.raises(InputError, match="has rotated vectors, and a mean of rotations is none"):
        embedtrain.merge([first, first], name="x", output_root=str(tmp_path))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["layers=[9]"], "layers must name whole layers in 1..4, got 9"),
        (["dims=[0]"], "dims must be 1 or more, got 0"),
        (["reflections=3"], "reflections must be an even number of 2 or more, got 3"),
        (["starts=[pca,pca]"], "starts must be distinct, got pca twice"),
        (["loss=margin_mse"], "use loss=infonce"),
        (["rows=5"], "rows must be 6 or more, got 5"),
    ],
)
def test_a_mistake_is_named(error_of, tiny_bert, rows, tmp_path, words, says):
    assert says in error_of("rotate", f"model={tiny_bert}", f"data={rows}", f"out={tmp_path}/out", *words)
    assert not (tmp_path / "out").exists()


def test_what_is_there_stays(error_of, tiny_bert, rows, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/thesis.txt").write_text("mine", "utf-8")
    words = [f"model={tiny_bert}", f"data={rows}", f"out={tmp_path}/notes", "overwrite=true"]
    assert "was not written by embedtrain" in error_of("rotate", *words)
    assert (tmp_path / "notes/thesis.txt").read_text("utf-8") == "mine"


def test_rows_to_choose_by_are_needed(error_of, tiny_bert, tmp_path):
    few = write_rows(tmp_path / "few.jsonl", [{"query": "a", "positive": "b"}] * 3)
    said = error_of("rotate", f"model={tiny_bert}", f"data={few}", f"out={tmp_path}/out")
    assert "too few are left to choose by" in said
