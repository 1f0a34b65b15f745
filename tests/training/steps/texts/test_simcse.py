"""Each text twice: two draws of dropout, equal texts no negatives, the loss of the paper by hand."""

import logging

import pytest
import torch
import torch.nn.functional as F

from embedtrain.data.order.draw import pick
from embedtrain.data.read.sources import Example
from embedtrain.model.folder.export import load_encoder
from embedtrain.objective.losses.contrastive import InfoNCE
from embedtrain.objective.matryoshka import Objective
from embedtrain.objective.plan import Full
from embedtrain.training.gradcache import GradCache
from embedtrain.training.steps.protocol import Context, Parts
from embedtrain.training.steps.simcse.step import SimCSE

TEXTS = ("a cat sleeps", "rain and sun", "a cat sleeps", "the quick old man plays a big red guitar")


def step_of(encoder, **groups):
    loss = InfoNCE(temperature=0.05)
    made = {"objective": Objective(loss), "loss": loss} | groups
    return SimCSE().step(Parts(encoder, 1, "gradient", lambda name, **_: made.get(name)))


def batch_of(step, texts=TEXTS):
    rows = [pick(Example(text, (), (), None, "t", f"rows:{n}"), n) for n, text in enumerate(texts)]
    return step.collate(rows, 0)


def loss_of(step, encoder, batch, seed=0):
    torch.manual_seed(seed)
    given = {"seed": lambda chunk: seed + chunk, "backward": torch.Tensor.backward}
    context = Context(encoder, Full(num_layers=4, width=32)(0), 0, lambda _: None, **given)
    return step.loss(batch, context)


@pytest.fixture
def encoder(tiny_bert):
    return load_encoder(tiny_bert, pooling="cls").train()


def test_the_loss_is_that_of_the_paper(encoder):
    """Two vectors of each text by dropout; the second of equal texts is no negative."""
    step = step_of(encoder)
    batch = batch_of(step)
    torch.manual_seed(3)
    found = encoder(batch.inputs, (4,)).values[0]
    first, second = F.normalize(found[:4], dim=-1), F.normalize(found[4:], dim=-1)
    assert (first * second).sum(1).max() < 0.9999, "dropout is on"
    logits = first @ second.T / 0.05
    logits[0, 2] = logits[2, 0] = -torch.inf
    expected = F.cross_entropy(logits, torch.arange(4))
    torch.testing.assert_close(loss_of(step, encoder, batch, seed=3), expected)


def test_the_copies_of_a_text_differ_in_chunks_too(encoder, monkeypatch):
    """Chunks of one text each: with the same dropout in both, positives would be equal and the loss lower."""
    step = step_of(encoder, gradcache=GradCache(mini_batch_size=1))
    batch = batch_of(step)
    seen, inner = [], step._loss_of

    def noted(texts, *more, **kept):
        seen.append(texts)
        return inner(texts, *more, **kept)

    monkeypatch.setattr(step, "_loss_of", noted)
    loss_of(step, encoder, batch).backward()
    vectors = F.normalize(seen[0].values[0].detach(), dim=-1)
    assert (vectors[:4] * vectors[4:]).sum(1).max() < 0.9999
    assert encoder.backbone.blocks[0].attention.self.query.weight.grad.abs().max() > 0


def test_all_texts_of_a_pair_take_part(encoder):
    step = step_of(encoder)
    example = Example("cat", ("dog",), ("fish", "man"), None, "t", "rows:1")
    batch = step.collate([pick(example, 1)], 0)
    assert len(batch.links.query) == 4
    assert batch.links.rows.tolist() == [1] * 4


def test_a_backbone_without_dropout_is_warned_of(tiny_modernbert, encoder, caplog):
    with caplog.at_level(logging.WARNING):
        step_of(encoder)
        assert "no dropout" not in caplog.text
        step_of(load_encoder(tiny_modernbert, pooling="cls"))
    assert "no dropout" in caplog.text
