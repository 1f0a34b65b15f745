"""Our losses and plans against sentence-transformers' own on a tiny BERT: value and gradients."""

import random

import pytest
import torch
from fixed_pairing import fixed
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    AdaptiveLayerLoss,
    AnglELoss,
    CoSENTLoss,
    Matryoshka2dLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
    TripletDistanceMetric,
    TripletLoss,
)
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import BertConfig, BertModel, BertTokenizer

from embedtrain.objective import plan
from embedtrain.objective.distill.kl import LayerKL
from embedtrain.objective.losses.angle import Angle
from embedtrain.objective.losses.contrastive import InfoNCE
from embedtrain.objective.losses.scored import CoSENT
from embedtrain.objective.losses.triples import Triplet
from embedtrain.objective.matryoshka import Objective
from embedtrain.types import Embeddings

SIZE = {"num_layers": 3, "width": 16}
DIMS = [4, 16, 8]  # in no order: both sides must sort weights along with them
WEIGHTS = [0.5, 1.0, 2.0]
WORDS = [f"w{number}" for number in range(30)]
SCORES = torch.tensor([0.1, 0.9, 0.5, 0.5, 0.0])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A random 3-layer, 16-wide float64 BERT with mean pooling, without dropout."""
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=35,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        initializer_range=0.5,
    )
    BertModel(config).save_pretrained(folder)
    transformer = Transformer(str(folder))
    return SentenceTransformer(modules=[transformer, Pooling(16, "mean")], device="cpu").double().eval()


def features(model, columns):
    """Token features of anchors, positives and so on: random sentences of 2..8 words."""
    generator = random.Random(0)
    texts = [
        [" ".join(generator.choices(WORDS, k=generator.randint(2, 8))) for _ in range(5)]
        for _ in range(columns)
    ]
    return [model.preprocess(column) for column in texts]


def pooled(model, column):
    """What the model pools after the embeddings and each block, (4, 5, 16)."""
    hidden = (
        model[0]
        .auto_model(
            input_ids=column["input_ids"], attention_mask=column["attention_mask"], output_hidden_states=True
        )
        .hidden_states
    )
    mask = column["attention_mask"][..., None].to(hidden[0].dtype)
    return torch.stack([(state * mask).sum(1) / mask.sum(1) for state in hidden])


def gradients(model, total):
    weights = [weight for name, weight in model.named_parameters() if "pooler" not in name]
    return torch.autograd.grad(total, weights, allow_unused=True)


def assert_equal(model, theirs, loss, chosen, columns, distill=None, scores=None):
    """Same value and same gradient of every weight: ours from pooled vectors, theirs from the model."""
    batch = features(model, columns)
    expected = theirs([dict(column) for column in batch], scores)
    query, *docs = (pooled(model, column) for column in batch)
    layers = (0, 1, 2, 3)
    allowed = torch.ones(5, 5 * len(docs), dtype=torch.bool)
    owner = torch.arange(5).repeat(len(docs))
    pairing = fixed(torch.arange(5), allowed, scores=scores, owner=owner)
    embeddings = Embeddings(query, layers), Embeddings(torch.cat(docs, 1), layers)
    value = Objective(loss, distill)(*embeddings, pairing, chosen)
    assert value.total.dtype == expected.dtype == torch.float64
    torch.testing.assert_close(value.total, expected, rtol=1e-10, atol=1e-12)
    compared = 0
    for ours, wanted in zip(gradients(model, value.total), gradients(model, expected), strict=True):
        if wanted is None:
            assert ours is None or not ours.any()
        else:
            torch.testing.assert_close(ours, wanted, rtol=1e-8, atol=1e-11)
            compared += int(wanted.abs().max() > 1e-6)
    assert compared > 40  # of 53 weights; keys' biases have no gradient in attention


FULL = plan.Full(**SIZE)(0)
KINDS = ["mnrl", "mnrl-negatives", "cosent", "angle", "angle-negatives", "triplet"]


@pytest.fixture
def pair_of_losses(model):
    """Kind -> (theirs, ours, settings of the comparison)."""

    def build(kind):
        if kind == "cosent":
            return CoSENTLoss(model), CoSENT(), {"columns": 2, "scores": SCORES}
        if kind == "angle":
            return AnglELoss(model), Angle(), {"columns": 2, "scores": SCORES}
        if kind == "angle-negatives":
            return AnglELoss(model), Angle(labels="negatives"), {"columns": 4}
        if kind == "triplet":
            theirs = TripletLoss(model, TripletDistanceMetric.COSINE, triplet_margin=0.7)
            return theirs, Triplet(0.7), {"columns": 3}
        columns = 4 if kind == "mnrl-negatives" else 2
        return MultipleNegativesRankingLoss(model), InfoNCE(), {"columns": columns}

    return build


@pytest.mark.parametrize("kind", KINDS)
def test_plain_losses(model, pair_of_losses, kind):
    theirs, ours, settings = pair_of_losses(kind)
    assert_equal(model, theirs, ours, FULL, **settings)


@pytest.mark.parametrize("kind", KINDS)
def test_matryoshka(model, pair_of_losses, kind):
    inner, ours, settings = pair_of_losses(kind)
    theirs = MatryoshkaLoss(model, inner, DIMS, WEIGHTS)
    assert_equal(model, theirs, ours, plan.Dims(DIMS, WEIGHTS, **SIZE)(0), **settings)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weighting", ["uniform", "log", "linear"])
def test_adaptive_layers(model, pair_of_losses, kind, weighting):
    inner, ours, settings = pair_of_losses(kind)
    shared = {"last_layer_weight": 0.7, "prior_layers_weight": 1.3, "layer_weighting": weighting}
    theirs = AdaptiveLayerLoss(model, inner, n_layers_per_step=-1, **shared)
    chosen = plan.Random2d([16], layers_per_step=-1, first_layer=0, **shared, **SIZE)(0)
    assert_equal(model, theirs, ours, chosen, distill=LayerKL(), **settings)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("weight", "temperature"), [(1.0, 0.3), (0.5, 2.0)])
def test_matryoshka_2d_of_everything(model, pair_of_losses, kind, weight, temperature):
    inner, ours, settings = pair_of_losses(kind)
    theirs = Matryoshka2dLoss(
        model, inner, DIMS, WEIGHTS, -1, -1, kl_div_weight=weight, kl_temperature=temperature
    )
    everything = plan.Random2d(DIMS, WEIGHTS, layers_per_step=-1, dims_per_step=-1, first_layer=0, **SIZE)
    assert_equal(model, theirs, ours, everything(0), distill=LayerKL(weight, temperature), **settings)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("layers_per_step", "dims_per_step"), [(1, 1), (2, 1), (2, 2), (-1, 1), (1, -1)])
def test_matryoshka_2d_with_their_draws_set_to_ours(
    model, pair_of_losses, kind, layers_per_step, dims_per_step, monkeypatch
):
    inner, ours, settings = pair_of_losses(kind)
    theirs = Matryoshka2dLoss(model, inner, DIMS, WEIGHTS, layers_per_step, dims_per_step)
    chooser = plan.Random2d(
        DIMS, WEIGHTS, layers_per_step=layers_per_step, dims_per_step=dims_per_step, first_layer=0, **SIZE
    )
    for step in range(4):
        chosen = chooser(step)
        drawn = {}
        for item in chosen:
            drawn.setdefault(item.sub.layer, []).append(sorted(DIMS, reverse=True).index(item.sub.dim))
        # They draw the dims of the last layer, then the layers, then the dims of each layer in turn.
        last, *layers = sorted(drawn, reverse=True)
        answers = []
        if dims_per_step != -1:
            answers.append(drawn[last])
        if layers_per_step != -1:
            answers.append(layers)
        else:
            layers.sort()
        if dims_per_step != -1:
            answers += [drawn[layer] for layer in layers]

        def answer(population, count, queue=answers):
            reply = queue.pop(0)
            assert len(reply) == count
            assert set(reply) <= set(population)
            return list(reply)

        with monkeypatch.context() as patch:
            patch.setattr(random, "sample", answer)
            assert_equal(model, theirs, ours, chosen, distill=LayerKL(), **settings)
        assert not answers
