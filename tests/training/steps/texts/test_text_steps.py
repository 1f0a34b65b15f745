"""Every step on texts: ranks and padding change nothing, every family serves, prompts and masks hold."""

from pathlib import Path

import pytest
import torch
from tiny_models import tiny_config, tiny_model

from embedtrain.data.order.draw import pick
from embedtrain.data.read.sources import Example
from embedtrain.model.backbone.families import FAMILIES
from embedtrain.model.folder.export import load_encoder
from embedtrain.settings.component import Component
from embedtrain.settings.options import option
from embedtrain.settings.places import config_dir
from embedtrain.settings.stages import OF_TEXTS
from embedtrain.training.steps.protocol import Context, Parts
from embedtrain.types import InputError, SubModel, Weighted

SCRIPT = Path(__file__).parents[2] / "text_ranks.py"
ENCODERS = sorted(kind for kind, family in FAMILIES.items() if not family.decoder)
SUBS = (SubModel(2, 8), SubModel(2, 16), SubModel(4, 32))
CHOSEN = tuple(Weighted(sub, weight) for sub, weight in zip(SUBS, (1.0, 2.0, 1.0), strict=True))


def test_every_step_is_of_texts_or_of_pairs():
    assert {path.stem for path in config_dir("conf").glob("step/*.yaml")} == {
        *OF_TEXTS,
        "contrastive",
        "simcse",
    }


def step_of(encoder, name, **settings):
    made = Component.of(option("step", name) | settings, "step").build()
    return made.step(Parts(encoder, 3, "gradient", lambda *_, **__: None))


def rows_of(texts):
    return [pick(Example(text, (), (), None, "t", f"rows:{n}"), n) for n, text in enumerate(texts)]


def loss_of(step, encoder, texts, number=0, chosen=CHOSEN):
    reports = []
    context = Context(encoder, chosen, 0, reports.append, seed=int, backward=lambda _: None)
    loss = step.loss(step.collate(rows_of(texts), number), context)
    torch.testing.assert_close(reports[0].loss, loss.detach())
    return loss, reports[0]


@pytest.fixture(scope="module")
def on_both(on_ranks, tiny_bert, sentences):
    return {n: on_ranks(SCRIPT, "main", n, tiny_bert, sentences, world=n) for n in (1, 2)}


@pytest.mark.parametrize("plan", ["full", "pairs"])
@pytest.mark.parametrize("name", OF_TEXTS)
def test_two_ranks_are_one(on_both, name, plan):
    """Of two accumulated batches, in float64; the ranks have texts of other lengths, so other padding."""
    (one,), two = on_both[1], on_both[2]
    loss, gradient = one[name, plan]
    assert loss > 0.1
    heads = [
        name for name, value in gradient.items() if name.startswith("owned.") and value.abs().max() > 1e-6
    ]
    assert heads, "what is thrown away trains along"
    for rank in two:
        assert rank[name, plan][0] == pytest.approx(loss, abs=1e-10)
        assert rank[name, plan][1].keys() == gradient.keys()
        for parameter, value in rank[name, plan][1].items():
            torch.testing.assert_close(value, gradient[parameter], rtol=0, atol=1e-10)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny_bert):
    """kind -> the folder of a tiny model of that family, without a head."""
    from transformers import AutoTokenizer

    made, root = {}, tmp_path_factory.mktemp("families")
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    for kind in ENCODERS:
        size = {"vocab_size": len(tokenizer), "max_position_embeddings": 64}
        tiny_model(tiny_config(kind, **size)).save_pretrained(root / kind)
        tokenizer.save_pretrained(root / kind)
        made[kind] = root / kind
    return made


def of_families():
    """Each family with two steps, each step with a third of the families; the others are slow."""
    for row, kind in enumerate(ENCODERS):
        for column, name in enumerate(OF_TEXTS):
            marks = () if (row + column) % 3 == 0 else pytest.mark.slow
            yield pytest.param(name, kind, marks=marks)


@pytest.mark.parametrize(("name", "kind"), of_families())
def test_every_family_serves_and_padding_changes_nothing(folders, sentences, name, kind):
    losses = []
    for side, extra in (("right", ()), ("left", ()), ("right", ("a cat " * 14,))):
        encoder = load_encoder(
            folders[kind], pooling="cls", padding_side=side, dtype=torch.float64, max_length=32
        ).eval()
        step = step_of(encoder, name)
        step.module.eval()
        losses.append(loss_of(step, encoder, [*sentences[:3], *extra]))
        if side == "left":
            losses[-1][0].backward()
            reached = [item for item in step.module.parameters() if item.grad is not None]
            assert reached
            (block,) = (list(one.parameters()) for one in encoder.backbone.blocks[-1:])
            assert any(item.grad is not None and item.grad.abs().max() > 0 for item in block)
    (right, parts), (left, _), (wide, _) = losses
    torch.testing.assert_close(left, right, rtol=1e-7, atol=1e-9)  # rotary angles are float32
    assert wide != right
    weights = torch.tensor([weight for _, weight in CHOSEN], dtype=torch.float64)
    each = torch.stack([value for _, value in parts.parts]).double()
    if name != "masked":  # whose dims play no part
        assert [sub for sub, _ in parts.parts] == list(SUBS)
        torch.testing.assert_close((each * weights).sum() / weights.sum(), right.detach())


@pytest.mark.parametrize("name", [name for name in OF_TEXTS if name != "masked"])
def test_a_prefix_sees_its_own_coordinates_alone(tiny_bert, sentences, name, monkeypatch):
    """Whatever the states hold beyond the dim of a sub-model, its losses are the same."""
    encoder = load_encoder(tiny_bert, pooling="mean", dtype=torch.float64, max_length=32).eval()
    step = step_of(encoder, name)
    step.module.eval()
    chosen = (Weighted(SubModel(4, 8), 1.0),)
    batch_loss, _ = loss_of(step, encoder, sentences, chosen=chosen)
    forward = encoder.backbone.forward

    def noisy(tokens, layers):
        states = forward(tokens, layers)
        noise = [torch.cat([state[..., :8], 9 + 0 * state[..., 8:]], -1) for state in states]
        return tuple(noise if max(layers) == 4 else states)  # not the embeddings for decoders

    monkeypatch.setattr(encoder.backbone, "forward", noisy)
    changed, report = loss_of(step, encoder, sentences, chosen=chosen)
    if name == "masked_bow":  # all of a layer predicts hidden tokens, only the vector is cut
        (_, own), (_, other) = report.parts[0], report.parts[0]
        assert own == other
        assert changed != batch_loss
    else:
        torch.testing.assert_close(changed, batch_loss, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", OF_TEXTS)
def test_a_model_without_a_mask_token_is_refused(tiny_qwen3, name):
    with pytest.raises(InputError, match=f"step={name} needs a tokenizer with a mask token"):
        step_of(load_encoder(tiny_qwen3, pooling="mean"), name)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("masked_bow", {"share": 0}, "share must be between 0 and 1, got 0"),
        ("masked_bow", {"bow_end": -1}, "bow_end must be 0 or more"),
        ("smae", {"decoder_share": 0.1}, "decoder_share must be at least share"),
        ("smae", {"decoder_layers": 0}, "decoder_layers must be"),
        ("retromae", {"decoder_share": 1}, "decoder_share must be between"),
        ("dupmae", {"bow": -0.1}, "bow must be 0 or more"),
        ("tsdae", {"share": 2}, "share must be between"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tiny_bert, name, settings, message):
    with pytest.raises(InputError, match=message):
        step_of(load_encoder(tiny_bert, pooling="mean"), name, **settings)
