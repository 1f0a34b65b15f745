"""The Python door: what the commands do, as functions that return objects."""

import json
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import embedtrain
from embedtrain.settings.commands import TrainerSettings, TrainSettings
from embedtrain.settings.options import settings_from
from embedtrain.training.callbacks.saving import TrainingProgress
from embedtrain.types import InputError

TRAINER = {"precision": "32-true", "log_every_n_steps": 1, "max_steps": 3}


@pytest.fixture(scope="session")
def keys(tiny_bert, small_data):
    """Settings of a run of seconds."""
    return {
        "backbone": {"path": tiny_bert},
        "data": {"train": small_data / "train.jsonl", "batch_size": 8},
        "plan": {"pairs": [[1, 8], [2, 16], [4, 32]]},
        "optim": {"lr": 1e-3},
        "trainer": TRAINER,
    }


@pytest.fixture(scope="session")
def local_task(tmp_path_factory):
    """A data root with one small set of scored pairs."""
    folder = tmp_path_factory.mktemp("local") / "sts" / "small"
    folder.mkdir(parents=True)
    words = "cat dog bird fish man woman child".split()
    rows = [
        {"sentence1": f"a {one} eats", "sentence2": f"the {two} runs", "score": float(one == two) * 4 + n / 9}
        for n, (one, two) in enumerate(zip(words, words[1:] + words[:1], strict=True))
    ]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return folder.parents[1]


@pytest.fixture(scope="session")
def run(keys, local_task, tmp_path_factory):
    evaluation = {"tasks": ["small"], "data_root": str(local_task)}
    return embedtrain.train(
        name="door", output_root=tmp_path_factory.mktemp("runs"), evaluation=evaluation, **keys
    )


def test_a_run_has_its_folder_its_scores_and_its_model(run):
    assert (run.folder / "model" / "model.safetensors").exists()
    assert {(score.layer, score.dim) for score in run.scores} >= {(1, 8), (2, 16), (4, 32)}
    assert {score.step for score in run.scores} == {0, 3}
    table = run.table()
    assert list(table.columns) == [8, 16, 32]
    main = next(s for s in run.scores if (s.step, s.layer, s.dim, s.metric) == (3, 4, 32, "cosine_spearman"))
    assert table.loc[3].xs(4, level="layer")[32].item() == main.value


def test_functions_train_what_the_command_trains(run, keys, tmp_path):
    words = [
        f"name=command output_root={tmp_path} backbone.path={keys['backbone']['path']} data.batch_size=8",
        f"data.train={keys['data']['train']} optim.lr=1e-3 plan.pairs=[[1,8],[2,16],[4,32]]",
        "trainer.precision=32-true trainer.log_every_n_steps=1 trainer.max_steps=3",
    ]
    command = [sys.executable, "-m", "embedtrain.cli.train", *" ".join(words).split()]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    one = load_file(run.folder / "model/model.safetensors")
    other = load_file(tmp_path / "command/model/model.safetensors")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_model_embeds_at_any_layer_and_dim(run):
    model = embedtrain.load(run.folder)
    assert model.trained == ((1, 8), (2, 16), (4, 32))
    vectors = model.encode(["a cat", "a dog"], layer=2, dim=16)
    assert vectors.shape == (2, 16)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1], abs=1e-6)
    assert model.encode("a cat", layer=2, dim=16) == pytest.approx(vectors[0], abs=1e-6)
    assert model.encode([]).shape == (0, model.width)
    with pytest.raises(embedtrain.InputError, match="layer"):
        model.encode("a cat", layer=9)


def test_a_cut_is_exported_evaluated_and_compared(run, local_task, tmp_path):
    cut = embedtrain.export(run, tmp_path / "cut", layer=2, dim=16)
    small = embedtrain.load(cut)
    assert (small.num_layers, small.width) == (2, 16)
    assert small.encode("a cat") == pytest.approx(run.model.encode("a cat", layer=2, dim=16), abs=1e-6)
    settings = {"tasks": ["small"], "data_root": local_task, "layers": [2], "dims": [16]}
    result = embedtrain.evaluate(small, output=tmp_path / "cut_scores", **settings)
    whole = embedtrain.evaluate(run, output=tmp_path / "scores", **settings)
    assert [score.value for score in result.scores] == pytest.approx([s.value for s in whole.scores])
    assert len(result.table()) == 1
    compared = embedtrain.compare([run], cells=[[4, 32], [1, 8]], resamples=200)
    assert compared["rows"]


def test_rows_are_mined(keys, tmp_path):
    teacher = {"path": keys["backbone"]["path"]}
    mined = embedtrain.mine(
        keys["data"]["train"], tmp_path / "mined.jsonl", teacher=teacher, selection="naive"
    )
    assert mined.rows.read_text("utf-8").count("\n") == mined.statistics["rows_out"] > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "adamw"}, "unknown setting 'optimizer'; here it is 'optim'"),
        ({"loss": "infonc"}, "did you mean 'infonce'"),
        ({"plan": {"pears": []}}, "has no setting 'pears'; did you mean 'plan.pairs'"),
        ({"trainer": {"devices": 2}}, "use the command embedtrain-train"),
        ({"data": {"trian": "rows.jsonl"}}, "unknown setting 'data.trian'; did you mean 'data.train'"),
        ({"data": __file__}, "data.train="),
        ({"loss": "CoSENTLoss"}, "here it is 'loss=cosent'"),
        ({"recipe": "quickstart"}, "did you mean 'quickstart_minilm'"),
        ({"seed": "one"}, "seed must be a whole number, e.g. 2, got 'one'"),
    ],
)
def test_mistakes_name_the_cure(keys, change, message, tmp_path):
    with pytest.raises(embedtrain.InputError, match=message):
        embedtrain.train(**{"name": "x", "output_root": str(tmp_path), **keys, **change})
    assert not (tmp_path / "x").exists()


def test_groups_take_a_name_a_mapping_or_settings(keys):
    given = {
        **keys,
        "loss": {"option": "cosent", "temperature": 0.1},
        "trainer": TrainerSettings(max_steps=7),
    }
    made = settings_from(TrainSettings, "train", {"name": "x", "guide": None, **given})
    assert made.loss.target.endswith(".CoSENT")
    assert made.loss.settings["temperature"] == 0.1
    assert made.trainer.max_steps == 7
    assert made.guide is None


def test_importing_is_cheap():
    code = "import sys, embedtrain; print([m for m in ('torch', 'transformers', 'mteb') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("texts", "settings", "message"),
    [
        ("a", {"role": "querry"}, "role must be query or document"),
        ("a", {"layer": 1.0}, "layer must be a whole number"),
        ("a", {"dim": "8"}, "dim must be a whole number"),
        ("a", {"prompt": 3}, "prompt must be a text"),
        (None, {}, "texts must be a text or a list"),
        (b"a", {}, "texts must be a text or a list"),
        (["a", None], {}, r"texts\[1\] must be a text"),
    ],
)
def test_encode_refuses_what_it_cannot_mean(run, texts, settings, message):
    with pytest.raises(embedtrain.InputError, match=message):
        run.model.encode(texts, **settings)


def test_ctrl_c_saves_the_step_and_the_same_call_continues(run, keys, tmp_path, monkeypatch):
    """In the process that calls, without the command's own handlers."""
    listening, progress = signal.getsignal(signal.SIGINT), TrainingProgress.on_train_batch_end

    def press(self, trainer, *given):
        progress(self, trainer, *given)
        if trainer.global_step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    settings = {**keys, "name": "door", "output_root": tmp_path}
    with monkeypatch.context() as patch:
        patch.setattr(TrainingProgress, "on_train_batch_end", press)
        with pytest.raises(KeyboardInterrupt, match="step 2 is saved; the same call continues"):
            embedtrain.train(**settings)
    assert signal.getsignal(signal.SIGINT) is listening
    assert (tmp_path / "door/checkpoints/step_000000002.ckpt").exists()
    again = embedtrain.train(**settings)
    one, other = (load_file(each.folder / "model/model.safetensors") for each in (run, again))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", ["first", "second"])
def test_two_threads_never_train_at_once(run, keys, tmp_path, monkeypatch, name):
    """They would share the random numbers of the process; the first ends as if it were alone."""
    progress, errors = TrainingProgress.on_train_batch_end, []

    def train_second():
        try:
            embedtrain.train(**keys, name=name, output_root=tmp_path)
        except Exception as error:
            errors.append(error)

    def meet(self, trainer, *given):
        progress(self, trainer, *given)
        if trainer.global_step == 2:
            second = threading.Thread(target=train_second)
            second.start()
            second.join()

    monkeypatch.setattr(TrainingProgress, "on_train_batch_end", meet)
    first = embedtrain.train(**keys, name="first", output_root=tmp_path)
    (error,) = errors
    assert isinstance(error, InputError)
    assert f"begin the run {name} when that has ended, or in a process of its own" in str(error)
    one, other = (load_file(each.folder / "model/model.safetensors") for each in (run, first))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not (tmp_path / "second").exists()
