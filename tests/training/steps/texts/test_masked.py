"""Hidden tokens are a function of (seed, step, row), and the loss is that of transformers."""

import shutil

import pytest
import torch
from transformers import AutoConfig, AutoModelForMaskedLM

from embedtrain.data.order.draw import pick
from embedtrain.data.read.sources import Example
from embedtrain.model.folder.export import load_encoder
from embedtrain.objective.plan import FixedPairs, Full
from embedtrain.training.steps.masked.step import Masked
from embedtrain.training.steps.protocol import Context, Parts
from embedtrain.training.steps.texts.collate import MaskedCollate, single_tokens
from embedtrain.training.steps.texts.head import NewTransform, OwnTransform
from embedtrain.training.steps.texts.hiding import IGNORED
from embedtrain.types import InputError


@pytest.fixture(scope="module", params=["tiny_bert", "tiny_modernbert"])
def with_head(request, tmp_path_factory):
    """A folder of a masked-language model, its head included."""
    source = request.getfixturevalue(request.param)
    folder = tmp_path_factory.mktemp("masked") / request.param
    shutil.copytree(source, folder)
    torch.manual_seed(5)
    model = AutoModelForMaskedLM.from_config(AutoConfig.from_pretrained(source))
    for value in model.parameters():
        value.data += 0.1 * torch.randn_like(value)
    model.save_pretrained(folder)
    return folder


def step_of(encoder, *, seed, share=0.15):
    return Masked(share).step(Parts(encoder, seed, "gradient", lambda *_, **__: None))


def collate_of(process, seed, share):
    return MaskedCollate(process, seed=seed, share=share, step="masked", choose=single_tokens)


def rows_of(texts):
    return [pick(Example(text, (), (), None, "t", f"rows:{n}"), n) for n, text in enumerate(texts)]


def encoder_of(folder):
    return load_encoder(folder, pooling="mean").eval()


def loss_of(step, encoder, batch, plan):
    reports = []
    context = Context(encoder, plan(0), 0, reports.append, seed=int, backward=lambda _: None)
    loss = step.loss(batch, context)
    torch.testing.assert_close(reports[0].loss, loss.detach())
    return loss, reports[0]


def test_the_loss_is_that_of_transformers(with_head, sentences):
    encoder = encoder_of(with_head)
    step = step_of(encoder, seed=0, share=0.5)
    assert isinstance(step.module.transform, OwnTransform)
    batch = step.collate(rows_of(sentences), 3)
    loss, _ = loss_of(step, encoder, batch, Full(num_layers=4, width=32))
    model = AutoModelForMaskedLM.from_pretrained(with_head).eval()
    expected = model(
        input_ids=batch.inputs.values, attention_mask=batch.inputs.mask.long(), labels=batch.labels
    ).loss
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    loss.backward()
    expected.backward()
    table = encoder.backbone.model.get_input_embeddings().weight
    torch.testing.assert_close(table.grad, model.get_input_embeddings().weight.grad, rtol=1e-5, atol=1e-6)


def test_every_layer_of_the_plan_trains_by_its_weight(tiny_bert, sentences):
    encoder = encoder_of(tiny_bert)
    step = step_of(encoder, seed=0)
    plan = FixedPairs([[2, 8], [4, 16], [4, 32]], [1, 1, 2], num_layers=4, width=32)
    loss, report = loss_of(step, encoder, step.collate(rows_of(sentences), 0), plan)
    parts = dict(report.parts)
    assert [str(sub) for sub in parts] == ["L2_D32", "L4_D32"]
    two, four = parts.values()
    torch.testing.assert_close(loss.detach(), (two + 3 * four) / 4)


def test_a_folder_without_a_head_gets_one_tied_to_the_embeddings(tiny_bert):
    encoder = encoder_of(tiny_bert)
    head, again = (step_of(encoder, seed=7).module for _ in range(2))
    assert isinstance(head.transform, NewTransform)
    assert head.decoder.weight is encoder.backbone.model.get_input_embeddings().weight
    assert torch.equal(head.transform.dense.weight, again.transform.dense.weight)


def test_what_is_hidden_depends_on_seed_step_and_row_alone(tiny_bert, sentences):
    process = encoder_of(tiny_bert).process
    rows, collate = rows_of(sentences), collate_of(process, 1, 0.3)
    batch = collate(rows, 4)
    for part in (rows[:3], rows[3:]):  # as two ranks have them, otherwise padded
        found = collate(part, 4)
        start = part[0].number
        for place in range(len(part)):
            mine, whole = found.inputs.mask[place], batch.inputs.mask[start + place]
            assert torch.equal(found.labels[place][mine], batch.labels[start + place][whole])
            assert torch.equal(found.inputs.values[place][mine], batch.inputs.values[start + place][whole])
    others = [collate(rows, 5), collate_of(process, 2, 0.3)(rows, 4)]
    assert not any(torch.equal(batch.labels, other.labels) for other in others)


def test_shares_of_hidden_tokens(tiny_bert, sentences):
    process, rows = encoder_of(tiny_bert).process, rows_of(sentences)
    plain = process(sentences, "document").values
    special = torch.tensor(process.tokenizer.all_special_ids)
    hidden = masked = same = ordinary = 0
    collate = collate_of(process, 0, 0.15)
    for step in range(400):
        batch = collate(rows, step)
        chosen = batch.labels != IGNORED
        assert torch.equal(batch.labels[chosen], plain[chosen])
        assert torch.equal(batch.inputs.values[~chosen], plain[~chosen])
        assert not torch.isin(batch.labels[chosen], special).any()
        ordinary += int((~torch.isin(plain, special)).sum())
        hidden += int(chosen.sum())
        masked += int((batch.inputs.values == process.tokenizer.mask_token_id).sum())
        same += int((batch.inputs.values[chosen] == plain[chosen]).sum())
    assert hidden / ordinary == pytest.approx(0.15, abs=0.005)
    assert masked / hidden == pytest.approx(0.8, abs=0.02)
    assert same / hidden == pytest.approx(0.1, abs=0.02)


def test_all_texts_of_a_pair_take_part(tiny_bert):
    example = Example("cat", ("dog", "bird"), ("fish", "man"), None, "t", "rows:1")
    batch = collate_of(encoder_of(tiny_bert).process, 0, 0.5)([pick(example, 1, 0)], 0)
    assert len(batch.inputs.values) == 4
    assert batch.rows.tolist() == [1]


def test_mistakes(tiny_qwen3):
    with pytest.raises(InputError, match="share must be between 0 and 1, got 1"):
        Masked(share=1)
    with pytest.raises(InputError, match="needs a tokenizer with a mask token"):
        step_of(encoder_of(tiny_qwen3), seed=0)
