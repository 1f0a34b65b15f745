"""Commands and training runs of tests: started, ended early, compared."""

import csv
import importlib
import json
import sys
from unittest import mock

import pytest
import torch
from pytorch_lightning.callbacks import Callback
from safetensors.torch import load_file

from embedtrain.cli.launch import settings_from
from embedtrain.run.numbers import logged
from embedtrain.run.publish import publish
from embedtrain.run.run import Run


def command(name, *words):
    """`embedtrain-NAME WORDS` in this process, as a person starts it; it may leave by SystemExit."""
    with mock.patch.object(sys, "argv", [f"embedtrain-{name}", *map(str, words)]):
        importlib.import_module(f"embedtrain.cli.{name}").main()


def write_rows(path, rows):
    """Lines of JSON at `path`, which is returned; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def write_table(path, rows, separator=","):
    """A CSV or TSV file with a header at `path`, which is returned; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.DictWriter(file, list(rows[0]), delimiter=separator)
        lines.writeheader()
        lines.writerows(rows)
    return path


def read_rows(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def flip(path, place, bit=1):
    """Damage a byte of a file; what it held before."""
    before = path.read_bytes()
    after = bytearray(before)
    after[place] ^= bit
    path.write_bytes(after)
    return before


class StopError(Exception):
    """Stands for whatever ends a run early."""


class StopAfter(Callback):
    """Raises once `step` optimiser steps are done, as late in accumulating for the next one as can be."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == self.step and (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            raise StopError


def compose(words):
    """The settings of `embedtrain-train WORDS`."""
    return settings_from("train", words)


def without(words, *keys):
    """The words that do not choose a group or set a key of these names."""
    return [word for word in words if word.partition("=")[0] not in keys]


def train(words, *callbacks):
    """A run from its start, or where it was stopped, to its end."""
    run = Run(compose(words))
    run.stage.trainer.callbacks.extend(callbacks)
    try:
        with logged(run):
            run.fit()
            publish(run)
    finally:
        run.folder.release()
    return run


def train_stopped(words, *stops):
    """A run that is stopped after each of these steps, and ends when it is started once more."""
    for stop in stops:
        with pytest.raises(StopError):
            train(words, StopAfter(stop))
    return train(words)


def weights(folder):
    """What a finished run published, and what its last checkpoint holds."""
    state = load_file(folder / "model/model.safetensors")
    learned = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return state | {f"checkpoint.{name}": value for name, value in learned.items()}


def assert_equal_bits(found, expected):
    """The same tensors under the same names."""
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def lines_of(folder):
    """metrics.jsonl without the one thing that is not a function of the run: its speed."""
    rows = read_rows(folder / "metrics.jsonl")
    timed = ("train/pairs_per_second", "train/seconds_per_step")
    return [{key: row[key] for key in row if key not in timed} for row in rows]


def assert_same_run(folder, other):
    """The weights and metrics of both, bit for bit."""
    assert_equal_bits(weights(folder), weights(other))
    assert lines_of(folder) == lines_of(other)


def assert_close_weights(folder, other):
    """What two runs published, up to rounding."""
    found, expected = (load_file(each / "model/model.safetensors") for each in (folder, other))
    for name, value in expected.items():
        if name.endswith("key.bias"):
            continue  # softmax does not see it: its gradient is rounding noise, which Adam scales to a step
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=0)
