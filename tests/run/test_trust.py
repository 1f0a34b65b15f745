"""A run never loses what it replaces or has made, and goes on only as what it began."""

import json
import shutil

import pytest
from pytorch_lightning.callbacks import Callback
from safetensors.torch import load_file, save_file
from small_runs import (
    StopAfter,
    StopError,
    assert_equal_bits,
    command,
    compose,
    lines_of,
    read_rows,
    train,
    weights,
    without,
    write_rows,
)

from embedtrain.evaluation.sweeping.sweep import IncompleteError
from embedtrain.files.scores import read_scores
from embedtrain.run import publish
from embedtrain.run import train as training
from embedtrain.run.run import Run
from embedtrain.types import InputError

STEPS = 4


@pytest.fixture
def words(small_run, tmp_path):
    more = [f"trainer.max_steps={STEPS}", "trainer.checkpoint_every_n_steps=1", f"output_root={tmp_path}"]
    return [*small_run, *more]


def test_an_interrupted_run_that_overwrites_goes_on_by_the_same_command(words, tmp_path):
    train([*words, "name=whole"])
    train([*words, "name=x", "seed=5"])
    overwriting = [*words, "name=x", "overwrite=true"]
    with pytest.raises(StopError):
        train(overwriting, StopAfter(2))
    run = train(overwriting)
    assert not run.untouched
    assert_equal_bits(weights(tmp_path / "x"), weights(tmp_path / "whole"))
    assert lines_of(tmp_path / "x") == lines_of(tmp_path / "whole")
    assert not (tmp_path / ".x.replaced").exists()


def test_until_its_first_checkpoint_the_old_run_is_there(words, tmp_path):
    train([*words, "name=x", "seed=5"])
    old = load_file(tmp_path / "x/model/model.safetensors")
    with pytest.raises(StopError):
        train([*words, "name=x", "overwrite=true"], StopAfter(0))
    assert_equal_bits(load_file(tmp_path / ".x.replaced/model/model.safetensors"), old)


WRONG = {
    "evaluation.layers=[9]": "layer must be in 1..4, got 9",
    "evaluation.dims=[64]": "dim must be in 1..32, got 64",
    "evaluation.dtypes=[float8]": "float8",
    "evaluation.tasks=[findd]": "no task 'findd'",
    "evaluation.rescore_multiplier=0": "rescore_multiplier must be",
    "evaluation.scoring_workers=0": "scoring_workers must be",
    "exports=[[9,8]]": "there is no sub-model",
    "eval_during=sweep eval_during.layers=[9]": "there is no L9",
    "eval_during=sweep eval_during.monitor=L9_D8": "monitor must be one of",
    "logger=wandb logger.log_model=true logger.offline=true": "logger: ",
    "data.train=nowhere.jsonl": "nowhere.jsonl",
    "trainer.precision=banana": "banana",
}


@pytest.fixture(scope="module")
def old_run(small_run, tmp_path_factory):
    """A finished run that must not be touched."""
    root = tmp_path_factory.mktemp("old")
    train([*small_run, "trainer.max_steps=1", f"output_root={root}", "name=x"])
    return root


@pytest.mark.parametrize("wrong", WRONG)
def test_a_mistake_is_known_before_anything_is_touched(old_run, words, small_data, wrong):
    before = {path: path.stat().st_mtime_ns for path in old_run.rglob("*") if path.is_file()}
    more = [f"output_root={old_run}", "name=x", "overwrite=true", f"evaluation.data_root={small_data}"]
    given = [*without(words, "output_root"), *more, "evaluation.tasks=[find]", *wrong.split()]
    with pytest.raises(InputError, match=WRONG[wrong].replace("[", r"\[")):
        Run(compose(given))
    after = {path: path.stat().st_mtime_ns for path in old_run.rglob("*") if path.is_file()}
    assert {path: after.get(path) for path in before if not path.name.endswith(".lock")} == {
        path: before[path] for path in before if not path.name.endswith(".lock")
    }
    assert [path.name for path in old_run.iterdir() if not path.name.endswith(".lock")] == ["x"]


@pytest.fixture
def own(words, small_data, tiny_bert, tmp_path):
    """The words of a run on rows and a model of its own: (words, rows, model folder)."""
    rows, model = tmp_path / "rows.jsonl", tmp_path / "bert"
    shutil.copy(small_data / "train.jsonl", rows)
    shutil.copytree(tiny_bert, model)
    kept = without(words, "data.train", "backbone.path")
    return [*kept, f"data.train={rows}", f"backbone.path={model}", "name=x"], rows, model


def other_rows(rows, model):
    lines = read_rows(rows)
    write_rows(rows, [{**lines[0], "query": "a new query"}, *lines[1:]])


def another_order(rows, model):
    write_rows(rows, read_rows(rows)[::-1])


def a_swapped_token(rows, model):
    tokenizer = json.loads((model / "tokenizer.json").read_text("utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["cat"], vocabulary["dog"] = vocabulary["dog"], vocabulary["cat"]
    (model / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")


def other_weights(rows, model):
    state = load_file(model / "model.safetensors")
    name = next(iter(sorted(state)))
    save_file({**state, name: state[name] + 1}, model / "model.safetensors", {"format": "pt"})


CHANGES = {
    other_rows: "training rows of .*rows",
    another_order: "training rows of .*rows",
    a_swapped_token: "tokenizer",
    other_weights: "starting weights",
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("stream", [False, True])
def test_a_run_goes_on_only_with_what_it_began_with(own, tmp_path, change, stream):
    words, rows, model = own
    if stream:
        words = [*without(words, "data.train"), f"data.train={{source: {rows}, stream: true}}"]
    with pytest.raises(StopError):
        train(words, StopAfter(1))
    change(rows, model)
    with pytest.raises(InputError, match=f"has changed since it began: {CHANGES[change]}. Put back"):
        train(words)
    train([*words, "overwrite=true"])


def test_the_same_rows_written_again_go_on(own, tmp_path):
    words, rows, _ = own
    with pytest.raises(StopError):
        train(words, StopAfter(1))
    write_rows(rows, read_rows(rows))
    train(words)


class Move(Callback):
    """Renames or removes the run folder after a step, as somebody does in another window."""

    def __init__(self, folder, how):
        self.folder, self.how = folder, how

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == 2 and self.folder.exists():
            self.how(self.folder)


def replaced(folder):
    folder.rename(folder.with_name("moved"))
    folder.mkdir()


MOVES = [shutil.rmtree, lambda folder: folder.rename(folder.with_name("moved")), replaced]


@pytest.mark.parametrize("how", MOVES)
def test_a_run_whose_folder_is_gone_ends_and_makes_no_other(words, tmp_path, how):
    with pytest.raises(InputError, match=r"x was renamed or removed while the run trained.*the same command"):
        train([*words, "name=x"], Move(tmp_path / "x", how))
    assert not (tmp_path / "x").exists() or not any((tmp_path / "x").iterdir())


@pytest.mark.parametrize("how", MOVES)
@pytest.mark.parametrize("begin", [Run.fit, publish.evaluate_before, publish.publish])
def test_a_folder_that_is_moved_before_the_first_step_is_noticed(words, small_data, tmp_path, how, begin):
    more = ["name=x", "evaluation.tasks=[find]", f"evaluation.data_root={small_data}"]
    run = Run(compose([*words, *more]))
    how(tmp_path / "x")
    with pytest.raises(InputError, match="x was renamed or removed while the run trained"):
        begin(run)
    run.folder.release()
    assert not (tmp_path / "x").exists() or not any((tmp_path / "x").iterdir())


def test_the_model_is_published_before_it_is_measured(words, small_data, tmp_path, monkeypatch):
    """As on a node without internet: every task fails, the model is there, and a later call measures it."""
    words = [*words, "name=x", "evaluation.tasks=[find]", f"evaluation.data_root={tmp_path}/data"]
    shutil.copytree(small_data, tmp_path / "data")
    run = Run(compose(words))
    run.folder.release()
    corpus = tmp_path / "data/retrieval/find/corpus.jsonl"
    lines = corpus.read_bytes()
    corpus.write_bytes(b"no json\n")
    for _ in range(2):
        with pytest.raises(IncompleteError, match="1 of 1 tasks failed; the same command tries them again"):
            training.train(compose(words))
        assert load_file(tmp_path / "x/model/model.safetensors")
    before = (tmp_path / "x/model/model.safetensors").stat().st_mtime_ns
    corpus.write_bytes(lines)
    training.train(compose(words))
    assert (tmp_path / "x/model/model.safetensors").stat().st_mtime_ns == before
    assert {score.step for score in read_scores(tmp_path / "x/scores.jsonl")} == {STEPS}
    assert "ndcg_at_10" in (tmp_path / "x/model/README.md").read_text("utf-8")
    with pytest.raises(InputError, match="holds a finished run"):
        training.train(compose(words))


def test_a_run_goes_on_after_a_kill_in_its_last_evaluation(
    words, small_data, tmp_path, monkeypatch, error_of
):
    words = [*words, "name=x", "overwrite=true", "evaluation.tasks=[find]", "evaluation.before=false"]
    words.append(f"evaluation.data_root={small_data}")

    def killed(*_):
        raise StopError

    with monkeypatch.context() as patch:
        patch.setattr(training, "evaluate_after", killed)
        with pytest.raises(StopError):
            training.train(compose(words))
    before = (tmp_path / "x/model/model.safetensors").stat().st_mtime_ns
    command("train", *words)  # as torchrun starts it again
    assert (tmp_path / "x/model/model.safetensors").stat().st_mtime_ns == before
    assert (tmp_path / "x/finished.json").exists()
