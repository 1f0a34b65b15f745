import pickle

import pytest
import pytorch_lightning as pl
import torch
from data_modules import QUIET, data_module, one_token
from small_runs import write_rows

from embedtrain.data.entries import read_sources
from embedtrain.data.module import DataModule
from embedtrain.training.steps.contrastive.collate import PairCollate
from embedtrain.types import InputError


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "train.jsonl"
    rows = [{"query": f"q{i}", "positives": [f"p{i}", f"r{i}"], "negative": f"n{i}"} for i in range(43)]
    write_rows(file, rows)
    return str(file)


def module_of(path, **options):
    settings = {"batch_size": 4, "max_epochs": 2, "seed": 0, "collate": PairCollate(one_token), **options}
    data = data_module(train=path, **settings)
    data.setup()
    return data


class Watcher(pl.LightningModule):
    """One parameter; keeps the rows and texts of every training step."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.seen = []
        self.validated = []

    def training_step(self, batch, index):
        self.seen.append((batch.links.rows.tolist(), batch.links.content_ids.tolist()))
        return self.weight * batch.inputs.values.float().mean()

    def validation_step(self, batch, index):
        self.validated.append(batch.links.rows.tolist())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


class Crash(pl.Callback):
    """Saves a checkpoint after some batches and dies, in the middle of the one long epoch."""

    def __init__(self, after, file):
        self.after = after
        self.file = file

    def on_train_batch_end(self, trainer, module, *_):
        if len(module.seen) == self.after:
            trainer.save_checkpoint(self.file)
            raise RuntimeError("crashed")


def fit(data, folder, *, callbacks=(), checkpoint=None, accumulate=1, watcher=None):
    own = {"accumulate_grad_batches": accumulate, "callbacks": list(callbacks), "default_root_dir": folder}
    trainer = pl.Trainer(max_epochs=1, enable_checkpointing=False, **own, **QUIET)
    watcher = watcher or Watcher()
    trainer.fit(watcher, datamodule=data, ckpt_path=checkpoint, weights_only=False)
    return trainer, watcher


@pytest.mark.parametrize(
    ("accumulate", "num_workers", "stop_after"), [(1, 0, 7), (2, 0, 6), (1, 2, 12), (2, 2, 14), (1, 0, 10)]
)
@pytest.mark.filterwarnings("error:You're resuming from a checkpoint that ended before the epoch ended")
def test_resumed_run_sees_exactly_the_batches_that_remain(
    path, tmp_path, accumulate, num_workers, stop_after
):
    whole, straight = fit(module_of(path), tmp_path, accumulate=accumulate)
    assert len(straight.seen) == 20
    assert whole.global_step == 20 // accumulate

    file, first = tmp_path / "half.ckpt", Watcher()
    data = module_of(path, num_workers=num_workers)
    with pytest.raises(RuntimeError, match="crashed"):
        fit(data, tmp_path, callbacks=[Crash(stop_after, file)], accumulate=accumulate, watcher=first)
    data = module_of(path, num_workers=num_workers)
    resumed, second = fit(data, tmp_path, checkpoint=file, accumulate=accumulate)
    assert len(first.seen) == stop_after
    assert first.seen + second.seen == straight.seen
    assert resumed.global_step == whole.global_step
    assert torch.equal(second.weight, straight.weight)


def test_finished_run_resumed_trains_nothing(path, tmp_path):
    trainer, _ = fit(module_of(path), tmp_path)
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    assert fit(module_of(path), tmp_path, checkpoint=tmp_path / "end.ckpt")[1].seen == []


def test_pickled_dataset_makes_the_same_batches(path):
    dataset = module_of(path).train_dataloader()._dataset
    copy = pickle.loads(pickle.dumps(dataset))
    assert all(torch.equal(copy[step].links.docs, dataset[step].links.docs) for step in (3, 17))
    assert copy[17].links.rows.tolist() == dataset[17].links.rows.tolist()


def joined(ranks):
    """The batches of all ranks, put together step by step."""
    return [[row for part in parts for row in part] for parts in zip(*ranks, strict=True)]


def test_ranks_share_the_global_batch_and_validation_without_loss(path, monkeypatch):
    alone = module_of(path, validation_rows=10)
    expected = [batch.links.rows.tolist() for batch in alone.train_dataloader()]
    held = [batch.links.rows.tolist() for batch in alone.val_dataloader()]
    assert [row for rows in held for row in rows] == list(range(10))
    trained, validated = [], []
    for rank in range(4):
        data = module_of(path, validation_rows=10)
        monkeypatch.setattr(data, "_place", lambda rank=rank: (rank, 4))
        trained.append([batch.links.rows.tolist() for batch in data.train_dataloader()])
        validated.append([batch.links.rows.tolist() for batch in data.val_dataloader()])
        assert all(validated[-1])
    assert joined(trained) == expected
    assert joined(validated) == held


def test_validation_runs_on_all_held_out_rows(path, tmp_path):
    _, watcher = fit(module_of(path, validation_fraction=0.25), tmp_path)
    assert sorted(row for rows in watcher.validated[-2:] for row in rows) == list(range(10))


def test_validation_file_and_limit(path):
    data = module_of(path, validation=path, validation_limit=5)
    batches = list(data.val_dataloader())
    assert [len(batch.links.rows) for batch in batches] == [5]
    assert data.has_validation
    assert module_of(path).val_dataloader() == []


def test_length_of_the_run(path):
    assert module_of(path).total_steps == 20
    assert module_of(path).batches_per_epoch == 10
    assert module_of(path, max_steps=33).total_steps == 33
    assert len(module_of(path, max_steps=3).train_dataloader()) == 3


def test_length_is_a_multiple_of_the_accumulated_batches(path, tmp_path):
    trainer, watcher = fit(module_of(path, max_epochs=1), tmp_path, accumulate=3)
    assert (len(watcher.seen), trainer.global_step) == (9, 3)
    trainer, watcher = fit(module_of(path, max_steps=5), tmp_path, accumulate=3)
    assert (len(watcher.seen), trainer.global_step) == (15, 5)
    with pytest.raises(InputError, match="1 epochs are 10 batches, fewer than the 11 batches of one"):
        fit(module_of(path, max_epochs=1), tmp_path, accumulate=11)


def test_rows_can_be_named(path):
    data = module_of(path)
    batch = next(iter(data.train_dataloader()))
    rows = batch.links.rows.tolist()
    assert [example.where for example in data.examples_at(rows)] == [f"{path}:{row + 1}" for row in rows]


def test_several_sources_are_joined_and_keep_their_task(path, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text('{"question": "q", "positive": "p"}\n')
    examples = read_sources([path, {"source": str(other), "columns": {"query": "question"}, "task": "qa"}])
    assert len(examples) == 44
    assert {example.task for example in examples} == {f"{tmp_path.name}/train", "qa"}


def test_errors_of_settings(path, tmp_path):
    with pytest.raises(
        InputError, match=r"a dataset has no setting 'sourc', only source.* Did you mean 'source'"
    ):
        read_sources({"sourc": path})
    with pytest.raises(InputError, match="a dataset needs a source"):
        read_sources({"split": "train"})
    with pytest.raises(InputError, match="list of datasets is empty"):
        read_sources([])
    with pytest.raises(InputError, match="give one of validation, validation_fraction and validation_rows"):
        module_of(path, validation=path, validation_rows=3)
    with pytest.raises(InputError, match=r"alpha must be in 0\.\.1, got 2"):
        module_of(path, alpha=2)
    scored = tmp_path / "scored.jsonl"
    scored.write_text('{"query": "q", "positive": "p", "score": 1}\n')
    with pytest.raises(InputError, match=r"scored\.jsonl:1 is a scored pair and .*train\.jsonl:1 is a pair"):
        read_sources([{"source": path, "task": "one"}, {"source": str(scored), "task": "one"}])
    (tmp_path / "more" / tmp_path.name).mkdir(parents=True)
    twin = tmp_path / "more" / tmp_path.name / "scored.jsonl"
    twin.write_text(scored.read_text())
    with pytest.raises(InputError, match=r"would both be the task '.*/scored': give each its own"):
        read_sources([str(scored), str(twin)])


def test_batch_that_ranks_cannot_share_is_refused_before_training(path, monkeypatch):
    monkeypatch.setattr(DataModule, "_place", lambda self: (0, 3))
    with pytest.raises(InputError, match="batch_size=4 cannot be split evenly over 3 ranks: make it 3 or 6"):
        module_of(path)
    with pytest.raises(InputError, match="validation has 2 rows for 3 ranks"):
        module_of(path, batch_size=3, validation_rows=2)


def test_validation_has_a_collate_of_its_own(path):
    def longer(texts, role, prompts=None):
        return one_token([text + "!" for text in texts], role, prompts)

    data = module_of(
        path,
        validation_rows=8,
        collate=PairCollate(one_token, longer),
        validation_collate=PairCollate(one_token),
    )
    batch = next(iter(data.train_dataloader()))
    assert torch.equal(batch.guide.values, batch.inputs.values + 1)
    assert next(iter(data.val_dataloader())).guide is None
