"""Rows of numbers in the place of texts: the ordinary data module, training, validation and `encode`."""

import json
from typing import NamedTuple

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from data_modules import QUIET, data_module
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn

from embedtrain.model.encoder import Encoder
from embedtrain.model.inputs.processor import padded
from embedtrain.model.pooling import Mean
from embedtrain.objective.losses.contrastive import InfoNCE
from embedtrain.objective.matryoshka import Objective
from embedtrain.objective.plan.constant import FixedPairs
from embedtrain.training.gradcache import GradCache
from embedtrain.training.module import TrainModule
from embedtrain.training.optim import AdamW
from embedtrain.training.steps.contrastive.batch_loss import BatchLoss
from embedtrain.training.steps.contrastive.step import ContrastiveStep
from embedtrain.types import InputError, SubModel

NUMBERS, WIDTH, STEPS = 5, 16, 10
PAIRS = [(1, 4), (1, 16), (2, 4), (3, 16)]


def points(where, field, value):
    """What a row holds as {"points": rows of numbers}; several documents are a list of these."""
    try:
        return tuple(tuple(map(float, row)) for row in value["points"])
    except (TypeError, KeyError) as error:
        raise InputError(f"{where}: {field!r} must be {{'points': rows of numbers}}.") from error


class Read(NamedTuple):
    values: np.ndarray  # (t, NUMBERS)

    @property
    def length(self):
        return len(self.values)


class PointProcessor:
    """Points to `Inputs` (M, T, NUMBERS); the role and prompts play no part."""

    max_length, prompts = 8, {}

    def read(self, contents, role, prompts=None):
        return [Read(np.array(content[: self.max_length], np.float32)) for content in contents]

    def pad(self, read):
        flat = np.concatenate([one.values for one in read])
        return padded(flat, [one.length for one in read], [0] * len(read))

    def __call__(self, contents, role, prompts=None):
        return self.pad(self.read(contents, role, prompts))


class LinearBackbone(nn.Module):
    """Three linear blocks with dropout, so that exact resume has something to lose."""

    num_layers, hidden_size, max_positions = 3, WIDTH, None

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(NUMBERS, WIDTH)
        self.blocks = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(self.num_layers))
        self.dropout = nn.Dropout(0.1)

    def forward(self, inputs, layers):
        state, states = self.first(inputs.values), []  # (M, T, WIDTH)
        for block in self.blocks[: max(layers)]:
            state = state + torch.tanh(block(self.dropout(state)))
            states.append(state)
        return tuple(states[layer - 1] for layer in layers)


def rows(count, seed):
    """A query is some points, its positive the same ones moved a little, one more at times."""
    generator = np.random.default_rng(seed)
    for number in range(count):
        center = generator.normal(size=NUMBERS)
        query, positive, negative = (
            {"points": (center * scale + 0.3 * generator.normal(size=(length, NUMBERS))).tolist()}
            for scale, length in ((1, 1 + number % 3), (1, 2), (-0.2, 4))
        )
        yield {"query": query, "positive": [positive], "negatives": [negative] * (number % 2)}


@pytest.fixture
def files(tmp_path):
    for name, count in (("train", 48), ("validation", 24)):
        text = "".join(json.dumps(row) + "\n" for row in rows(count, count))
        (tmp_path / f"{name}.jsonl").write_text(text, "utf-8")
    return tmp_path


def encoder_of():
    torch.manual_seed(0)
    return Encoder(LinearBackbone(), Mean(), PointProcessor(), max_tokens=16)


def trained(files, *, resume=None, chunks=None, workers=0):
    """(module, data, trainer) of a whole run, which leaves a checkpoint of step 4."""
    plan = FixedPairs([list(pair) for pair in PAIRS], num_layers=3, width=WIDTH)
    cache = None if chunks is None else GradCache(max_tokens=chunks)
    loss = BatchLoss(Objective(InfoNCE(temperature=0.1)))
    step = ContrastiveStep(loss, PointProcessor(), gradcache=cache)
    options = {"batch_size": 8, "num_workers": workers, "group_by_length": True, "seed": 0, "content": points}
    data = data_module(
        train=f"{files}/train.jsonl",
        validation=f"{files}/validation.jsonl",
        **options,
        max_steps=STEPS,
        collate=step.collate,
    )
    module = TrainModule(encoder_of(), step, plan, AdamW(lr=5e-3), total_steps=STEPS)
    saving = ModelCheckpoint(files, "{step}", every_n_train_steps=4, save_top_k=-1)
    own = {"max_steps": STEPS, "max_epochs": 1, "val_check_interval": 5, "default_root_dir": files}
    trainer = pl.Trainer(callbacks=saving, **own, **QUIET)
    trainer.fit(module, datamodule=data, ckpt_path=resume)
    return module, data, trainer


@pytest.mark.parametrize("chunks", [None, 12])
def test_points_train_validate_and_resume_to_the_same_weights(files, chunks):
    module, data, trainer = trained(files, chunks=chunks)
    again = trained(files, chunks=chunks, resume=files / "step=4.ckpt", workers=1)[0]
    weights = module.state_dict()
    assert weights.keys() == again.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in again.state_dict().items())
    assert not torch.equal(weights["encoder.backbone.first.weight"], encoder_of().backbone.first.weight)
    scores = [trainer.callback_metrics[f"val/ndcg_at_10_L{layer}_D{dim}"] for layer, dim in PAIRS]
    assert all(0.5 < float(score) <= 1 for score in scores)
    assert data.total_steps == STEPS


def test_points_are_encoded_as_they_are_trained(files):
    encoder = trained(files)[0].encoder
    contents = [points("", "", row["query"]) for row in rows(30, 1)]
    embeddings = encoder.encode(contents, (1, 3))
    assert embeddings.values.shape == (2, 30, WIDTH)
    with torch.no_grad():
        states = encoder.eval().backbone(encoder.process(contents[:1], "document"), (1, 3))
    for layer, state in zip((1, 3), states, strict=True):
        for dim in (4, WIDTH):
            unit = torch.nn.functional.normalize(state[0].mean(0)[:dim], dim=0)
            torch.testing.assert_close(embeddings.at(SubModel(layer, dim))[0], unit, rtol=0, atol=1e-6)


def test_a_row_of_texts_is_named(files):
    (files / "train.jsonl").write_text('{"query": "a text", "positive": {"points": [[1.0]]}}\n', "utf-8")
    with pytest.raises(InputError, match=r"train.jsonl:1: 'query' must be {'points': rows of numbers}"):
        trained(files)
