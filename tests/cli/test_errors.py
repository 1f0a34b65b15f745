"""Mistakes a person makes at the command line: one message, status 1, no traceback."""

import errno
import json
import signal

import pytest
import torch
from small_runs import command

from embedtrain.cli.commands import COMMANDS
from embedtrain.model.backbone.backbone import Backbone
from embedtrain.model.folder.export import load_encoder
from embedtrain.objective.losses.contrastive import InfoNCE
from embedtrain.objective.matryoshka import Objective
from embedtrain.run.run import Run
from embedtrain.training import checkpoints as checkpoint
from embedtrain.training.metrics import FileLogger


@pytest.fixture
def say(error_of, monkeypatch, tmp_path):
    """Run a command in the folder of the test; the one message it leaves with."""
    monkeypatch.chdir(tmp_path)
    return error_of


@pytest.fixture
def words(small_run, tmp_path):
    return [*small_run, "name=x", f"output_root={tmp_path}", "trainer.max_steps=4"]


def rows_file(folder, *lines):
    path = folder / "rows.jsonl"
    path.write_text("".join(line + "\n" for line in lines), "utf-8")
    return f"data.train={path}"


GOOD = [json.dumps({"query": f"cat {n}", "positive": f"dog {n}"}) for n in range(8)]


@pytest.mark.parametrize(
    ("lines", "parts"),
    [
        ([*GOOD, '{"query": "cat", '], ["rows.jsonl:9", "JSON", "data.on_bad_row=skip leaves such rows out"]),
        ([*GOOD, '{"query": "cat"}'], ["rows.jsonl:9", "positive"]),
        ([*GOOD, '{"query": " ", "positive": "dog"}'], ["rows.jsonl:9", "query", "empty"]),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(say, words, tmp_path, lines, parts):
    message = say("train", *words, rows_file(tmp_path, *lines))
    assert all(part in message for part in parts), message
    assert not (tmp_path / "x").exists()


def test_nothing_to_contrast(say, words):
    assert "nothing to contrast" in say("train", *words, "data.batch_size=1")


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("plan.pairs=[[1,8],[9,32],[4,32]]", ["plan", "9", "4"]),
        ("plan.pairs=[[1,80],[4,32]]", ["plan", "80", "32"]),
        ("exports=[[5,8]]", ["L5_D8", "1..4"]),
        ("sede=3", ["unknown config key 'sede'", "did you mean 'seed'?"]),
        ("optin.lr=1", ["unknown config key 'optin.lr'", "did you mean 'optim'?"]),
        ("plan=fixed_pair", ["plan=fixed_pair does not exist", "did you mean 'fixed_pairs'?"]),
        ("optim.learning_rate=1",
         ["optim.learning_rate", "AdamW has no setting 'learning_rate'; here it is 'optim.lr'"]),
        ("data.max_steps=3", ["data.max_steps", "it is now 'trainer.max_steps'"]),
        ("loss=CoSENTLoss", ["loss=CoSENTLoss does not exist; here it is 'loss=cosent'"]),
        ("plan.piars=[[1,8]]", ["plan.piars", "did you mean 'plan.pairs'?"]),
        ("seed=abc", ["seed", "abc"]),
        ("recipe=quickstart_minilmm", ["'quickstart_minilmm' does not exist", "'quickstart_minilm'"]),
        ("optim.lr=-1", ["optim", "lr must be above 0, got -1"]),
        ("loss.temperature=0", ["loss: temperature must be above 0"]),
        ("trainer.accumulate_grad_batches=0", ["trainer: accumulate_grad_batches must be 1 or more, got 0"]),
        ("evaluation.tasks=[findd] evaluation.data_root=DATA", ["no task 'findd'", "find"]),
        ("data.train=nowhere.jsonl", ["nowhere.jsonl"]),
        ("data.train=no/a.jsonl evaluation.data_root=no", ["no/a.jsonl", "evaluation.data_root=DIR"]),
        ("data.train=no/dictionary/a.jsonl evaluation.data_root=no/dictionary",
         ["`python -m embedtrain.data.dictionary no/dictionary` makes it"]),
        ("evaluation.tasks=[help]", ["no task 'help'", "data_root=DIR"]),
        ("rows.jsonl", ["rows.jsonl: is no KEY=VALUE", "quoted"]),
        ("evaluation.task=[local]", ["config key 'evaluation.task'", "did you mean 'evaluation.tasks'?"]),
        ("data.bach_size=3", ["data.bach_size", "did you mean 'data.batch_size'?"]),
        ("optim.lr=fast", ["optim.lr must be a number, got 'fast'"]),
        ("optim.betas=abc", ["optim.betas must be a list, got 'abc'"]),
        ("gradcache=chunks gradcache.max_tokens=abc", ["gradcache.max_tokens must be a number, got 'abc'"]),
        ("trainer.precision=banana", ["trainer: ", "banana", "Choose another trainer=NAME"]),
        ("loss._target_=os.system", ["loss._target_ 'os.system' is not allowed"]),
        ("exports=[[4]]", ["exports must be a list of [layer, dim], got [4]"]),
    ],
)  # fmt: skip
def test_a_wrong_setting_names_the_place_and_the_cure(say, words, small_data, override, parts):
    message = say("train", *words, *override.replace("DATA", str(small_data)).split())
    assert all(part in message for part in parts), message


@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_a_missing_model_folder(say, command, tmp_path, tiny_bert):
    words = {"evaluate": ["tasks=[local]", "data_root=."], "export": ["out=cut"]}[command]
    message = say(command, f"model={tmp_path / 'runs' / 'no-such-model'}", *words)
    assert "no-such-model" in message
    assert not (tmp_path / "cut").exists()
    assert f"(nearest: {tiny_bert})" in say(command, f"model={tiny_bert}s", *words)


def test_a_backbone_that_is_not_there(say, words, tiny_bert):
    message = say("train", *words, f"backbone.path={tiny_bert}s")
    assert f"there is no model folder {tiny_bert}s (nearest: {tiny_bert})" in message


def test_a_run_that_has_not_finished_is_no_model(say, tmp_path):
    (tmp_path / "half/checkpoints").mkdir(parents=True)
    (tmp_path / "half/config.yaml").touch()
    assert "has not finished: run its command again" in say("export", "model=half", "out=cut")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has what the test needs to be missing")
def test_a_gpu_that_is_not_there(say, words):
    message = say("train", *words, "trainer=gpu")
    assert message.startswith("error: trainer: ")
    assert "Choose another trainer=NAME" in message


def test_a_loss_that_is_not_a_number_stops_before_the_weights_change(say, words, tmp_path, monkeypatch):
    honest = InfoNCE.inverse_temperature
    monkeypatch.setattr(
        InfoNCE, "inverse_temperature", lambda self, step: honest(self, step) if step < 2 else float("nan")
    )
    message = say("train", *words, "trainer.checkpoint_every_n_steps=1")
    assert "loss is nan at step 2, first at L1_D8" in message
    assert "train.jsonl:" in message
    state = torch.load(tmp_path / "x/checkpoints/last.ckpt", weights_only=True)
    assert state["global_step"] == 2
    assert all(torch.isfinite(value).all() for value in state["state_dict"].values())
    monkeypatch.setattr(InfoNCE, "inverse_temperature", honest)
    command("train", *words, "trainer.checkpoint_every_n_steps=1")  # the same, now that the cause is gone
    assert load_encoder(tmp_path / "x/model").num_layers == 4


def test_a_gradient_that_is_not_finite_stops_too(say, words, tmp_path, monkeypatch):
    class Spoil(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value):
            return value.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * float("inf")

    honest = Objective.forward

    def spoiled(self, *values):
        value = honest(self, *values)
        return value._replace(total=Spoil.apply(value.total))

    monkeypatch.setattr(Objective, "forward", spoiled)
    message = say("train", *words)
    assert "gradient norm is" in message
    assert "at step 0" in message


def test_a_full_disk_while_saving(say, words, tmp_path, monkeypatch):
    saved, honest = [], torch.save

    def save(state, file):
        saved.append(1)
        if len(saved) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        honest(state, file)

    monkeypatch.setattr(checkpoint.torch, "save", save)
    message = say("train", *words, "trainer.checkpoint_every_n_steps=1")
    assert "no space left while saving" in message
    saved = sorted(path.name for path in (tmp_path / "x/checkpoints").iterdir())
    assert saved == ["last.ckpt", "step_000000001.ckpt", "step_000000002.ckpt"]


def test_a_full_disk_while_logging(say, words, tmp_path, full_disk):
    full_disk(FileLogger, "log_metrics")
    message = say("train", *words)
    assert f"{tmp_path}: the disk is full; free some space and run the same command again" in message


def test_a_full_disk_while_publishing(say, words, tmp_path, full_disk):
    full_disk(Backbone, "save")
    assert "the disk is full; nothing was left behind" in say("train", *words)
    assert sorted(path.name for path in (tmp_path / "x").iterdir() if "model" in path.name) == []


@pytest.mark.parametrize(
    ("part", "name"), [(Run, "fit"), (InfoNCE, "inverse_temperature")], ids=["between_steps", "in_a_step"]
)
def test_ctrl_c_says_how_to_go_on(words, monkeypatch, capsys, tmp_path, part, name):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(part, name, interrupted)
    handler = signal.getsignal(signal.SIGINT)  # Lightning leaves the signal ignored
    try:
        with pytest.raises(SystemExit) as left:
            command("train", *words)
    finally:
        signal.signal(signal.SIGINT, handler)
    last = capsys.readouterr().err.splitlines()[-1]
    assert (left.value.code, last) == (130, f"stopped; {COMMANDS['train'].again}")
