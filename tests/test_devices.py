"""Every command computes on its device, without one at hand: `fake_device` says what would happen there."""

import pytest
import torch
from fake_device import FAKE, fake_device
from small_runs import command, compose

import embedtrain
from embedtrain import ranks
from embedtrain.devices import device_of, placed
from embedtrain.model.encoder import Encoder
from embedtrain.model.guides.guide import EncoderVectors
from embedtrain.run.publish import evaluate_after, evaluate_before
from embedtrain.run.run import Run
from embedtrain.types import InputError


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(8, False, "cuda:3"), (2, False, "cuda:1"), (0, True, "mps"), (0, False, "cpu")],
)
def test_auto_is_the_gpu_of_this_rank(cuda, mps, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(ranks, "local_rank", lambda: 3)
    assert str(device_of("auto")) == expected


@pytest.mark.parametrize("name", ["nonsense", "cuda:0", "mps"])
def test_a_device_that_is_not_there(name):
    with pytest.raises(InputError, match=f"device={name} is not there"):
        device_of(name)


def test_a_module_is_back_afterwards():
    module = torch.nn.Linear(2, 2)
    with fake_device():
        with placed(module, FAKE):
            assert module.weight.device == FAKE
        assert module.weight.device == torch.device("cpu")


@pytest.fixture
def used(monkeypatch):
    """The devices on which a model ran."""
    found = set()

    def noted(owner, name, device):
        before = getattr(owner, name)

        def run(self, *args, **kwargs):
            found.add(device(self))
            return before(self, *args, **kwargs)

        monkeypatch.setattr(owner, name, run)

    noted(Encoder, "encode", lambda encoder: encoder.device.type)
    noted(EncoderVectors, "vectors", lambda model: model.encoder.device.type)
    return found


def evaluated(model, data, out, *more):
    words = ["tasks=[local]", f"data_root={data}", f"output={out}", "device=fakegpu", "scoring_workers=1"]
    command("evaluate", f"model={model}", *words, *more)


def evaluated_in_python(model, data, out):
    embedtrain.evaluate(
        str(model), tasks=["local"], data_root=str(data), output=str(out), device="fakegpu", scoring_workers=1
    )


def planned(model, data, out):
    evaluated(model, data, out, "plan=true")


def mined(model, data, out):
    command(
        "mine", f"source={data}/train.jsonl", f"teacher.path={model}", f"out={out}/mined.jsonl",
        "selection=naive", "device=fakegpu",
    )  # fmt: skip


def loaded(model, data, out):
    embedtrain.load(str(model), device="fakegpu").encode(["a cat"])


@pytest.mark.parametrize("run", [evaluated, evaluated_in_python, planned, mined, loaded])
def test_a_command_runs_its_model_on_the_device(run, used, tiny_bert, small_data, tmp_path):
    with fake_device():
        run(tiny_bert, small_data, tmp_path / "out")
    assert used == {"fakegpu"}


def test_a_run_is_measured_where_it_trains(used, tiny_bert, small_data, tmp_path, monkeypatch):
    words = [
        "name=x", f"output_root={tmp_path}", f"backbone.path={tiny_bert}",
        f"data.train={small_data}/train.jsonl",
        "data.batch_size=8", "plan=full", "trainer=cpu", "trainer.max_steps=2", "evaluation.tasks=[local]",
        f"evaluation.data_root={small_data}", "evaluation.scoring_workers=1",
    ]  # fmt: skip
    run = Run(compose(words))
    monkeypatch.setattr(type(run.stage.trainer.strategy), "root_device", FAKE)
    try:
        with fake_device():
            assert evaluate_before(run) is None
            assert used == {"fakegpu"}
            assert run.encoder.device == torch.device("cpu")
            used.clear()
            run.final_step = 2
            assert evaluate_after(run, []) is None
    finally:
        run.folder.release()
    assert used == {"fakegpu"}


def test_a_run_on_the_cpu_leaves_a_gpu_alone(tiny_bert, small_data, tmp_path, monkeypatch):
    def used(*_):
        raise RuntimeError("a context was opened on the GPU")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "_lazy_init", used)
    monkeypatch.setattr(torch.Tensor, "pin_memory", used)
    command(
        "train", "name=x", f"output_root={tmp_path}", f"backbone.path={tiny_bert}",
        f"data.train={small_data}/train.jsonl", "data.batch_size=8", "data.validation_rows=8", "plan=full",
        "trainer=cpu", "trainer.max_steps=2", "evaluation.tasks=[local]",
        f"evaluation.data_root={small_data}",
    )  # fmt: skip
    assert (tmp_path / "x/scores.jsonl").exists()


@pytest.mark.parametrize(("device", "pinned"), [("cuda:0", True), ("cpu", False), ("mps", False)])
def test_batches_are_pinned_for_cuda_alone(device, pinned, tiny_bert, small_data, tmp_path, monkeypatch):
    words = ["name=x", f"output_root={tmp_path}", f"backbone.path={tiny_bert}", "plan=full", "trainer=cpu"]
    words = [*words, "data.batch_size=8"]
    run = Run(compose([*words, f"data.train={small_data}/train.jsonl", "data.validation_rows=8"]))
    monkeypatch.setattr(type(run.stage.trainer.strategy), "root_device", torch.device(device))
    run.folder.release()
    for loader in (run.stage.data.train_dataloader(), run.stage.data.val_dataloader()):
        assert loader._pin_memory is pinned
