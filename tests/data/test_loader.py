"""Batches from worker processes: what their errors say, and that they are made ahead."""

import multiprocessing
import os
import signal

import pytest
from data_modules import one_token
from processes import wait_until
from torch.utils.data._utils import signal_handling

from embedtrain.data.loader import StepDataset, StepLoader
from embedtrain.data.order.sampler import EvenBatches, slice_for_rank
from embedtrain.data.read.sources import Example
from embedtrain.training.steps.contrastive.collate import PairCollate
from embedtrain.types import InputError

ROWS = [Example(f"q{n}", (f"p{n}",), (), None, "task", f"rows.jsonl:{n + 1}") for n in range(24)]


class Tokenizer:
    """One token a text, and something else for the text `bad`."""

    def __init__(self, act=None, note=None):
        self.act, self.note = act, note

    def __call__(self, texts, role, prompts=None):
        if self.act is not None and "q9" in texts:
            self.act()
        if self.note is not None:
            with self.note.open("a") as file:
                file.write(f"{os.getpid()} {os.environ.get('TOKENIZERS_PARALLELISM')}\n")
        return one_token(texts, role)


def loader(process, workers, first=0):
    batches = EvenBatches(ROWS, batch_size=4)
    dataset = StepDataset(batches, PairCollate(process), cut=slice_for_rank)
    return StepLoader(dataset, batches.batches, first=lambda: first, num_workers=workers)


def refuse():
    raise InputError("max_length 2 leaves no room")


def fail():
    raise KeyError("nothing")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_order_from_any_step(workers):
    found = [batch.links.rows.tolist() for batch in loader(Tokenizer(), workers, first=2)]
    assert found == [list(range(start, start + 4)) for start in range(8, 24, 4)]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_for_the_user_arrives_as_it_was(workers):
    batches = iter(loader(Tokenizer(refuse), workers))
    assert next(batches).links.rows.tolist() == [0, 1, 2, 3]
    next(batches)
    with pytest.raises(InputError) as caught:
        next(batches)
    assert str(caught.value) == "max_length 2 leaves no room"


def test_another_error_names_the_rows():
    with pytest.raises(RuntimeError, match="batch 2 could not be made") as caught:
        list(loader(Tokenizer(fail), 1))
    said = str(caught.value)
    assert "rows.jsonl:9, rows.jsonl:10, rows.jsonl:11 and 1 more" in said
    assert "KeyError: 'nothing'" in said


def test_a_worker_that_is_killed_is_an_error_with_rows(monkeypatch):
    """And raises nowhere else: torch's own handler of the signal does, with whatever lock is taken there."""
    monkeypatch.setattr(signal_handling, "_SIGCHLD_handler_set", False)
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with pytest.raises(InputError, match=r"died at batch [012] .*rows\.jsonl:[159],.*lower data\.num_"):
        list(loader(Tokenizer(die), 1))
    assert signal.signal(signal.SIGCHLD, before) is signal.SIG_DFL


def test_workers_go_on_while_nobody_asks(tmp_path):
    note = tmp_path / "note"
    batches = iter(loader(Tokenizer(note=note), 1))
    next(batches)
    # Two further batches, of queries and documents each, are made during, say, a validation.
    wait_until(lambda: len(note.read_text().splitlines()) >= 2 * 3)
    assert str(os.getpid()) not in note.read_text()


def test_no_worker_outlives_an_error_that_is_remembered():
    """It ignores SIGTERM, so the exit of this process would wait for it."""
    with pytest.raises(RuntimeError, match="could not be made") as caught:
        list(loader(Tokenizer(fail), 2))
    assert caught.value.__traceback__ is not None
    assert [child for child in multiprocessing.active_children() if child.daemon and child.is_alive()] == []
