"""Every backbone family x every pooling x padding side x layer: what an embedding may depend on.

And that an exported folder and an ONNX graph give the embedding that was trained. The fast run has every pair
of family, pooling, side and check; the slow one the rest of the product.
"""

import itertools
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import ClassVar, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from pairwise import pairwise
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from embedtrain.model.backbone.backbone import Backbone
from embedtrain.model.encoder import Encoder
from embedtrain.model.folder.export import load_encoder, save_encoder
from embedtrain.model.folder.onnx import FILE, FOLDER, export_onnx, run
from embedtrain.model.inputs.tokenizer import TextTokenizer
from embedtrain.model.pooling import POOLINGS, named_pooling
from embedtrain.types import Inputs, SubModel

LAYERS = (1, 2, 4)  # first, middle, last
SUBS = (SubModel(1, 8), SubModel(2, 16), SubModel(3, 31), SubModel(4, 32))
BACKBONES = {
    "bert": ("tiny_bert", None),
    "modernbert": ("tiny_modernbert", None),
    "llama": ("tiny_llama", "bidirectional"),
    "qwen3": ("tiny_qwen3", "causal"),
    "gemma3": ("tiny_gemma3", "bidirectional"),
    "gemma3-causal": ("tiny_gemma3", "causal"),
}
STEPS = [
    {"kind": "dense", "in_features": 64, "out_features": 32, "bias": True, "activation": "Tanh"},
    {"kind": "layer_norm", "width": 32},
    {"kind": "dense", "in_features": 32, "out_features": 32, "bias": False, "activation": "Identity"},
]
POOLED: dict[str, tuple[str, dict[str, object]]] = {
    "mean": ("mean", {}),
    "cls": ("cls", {}),
    "max": ("max", {}),
    "weighted_mean": ("weighted_mean", {}),
    "mean_sqrt_len": ("mean_sqrt_len", {}),
    "concat": ("concat", {"of": "max+eos"}),
    "projected": ("projected", {"pooling": "concat", "settings": {"of": "cls+mean"}, "steps": STEPS}),
    "projected-layers": ("projected", {"pooling": "multi_layer", "steps": STEPS[2:]}),
    "eos": ("eos", {}),
    "gated_mean": ("gated_mean", {}),
    "projected-gated": ("projected", {"pooling": "gated_mean", "steps": STEPS[2:]}),
    "latent_attention": ("latent_attention", {}),
    "latent_attention-own": ("latent_attention", {"shared": False, "heads": 2, "head_width": 6}),
    "last_layer": ("last_layer", {}),
    "last_layer-last_token": ("last_layer", {"source": "last_token", "shared": False}),
    "multi_layer": ("multi_layer", {}),
    "multi_layer-last_token": ("multi_layer", {"source": "last_token", "heads": 2}),
    "multi_layer-own": ("multi_layer", {"shared": False}),
}
SIDES = ("right", "left")
TEXTS = (
    "a cat sleeps",
    "bird",
    "the quick old man plays a big red guitar in the house by the river with a small blue bird",
    "rain and sun",
)
PROMPT = "the word: "
CHECKS = ("padding", "prompt", "export")
EVERY = [
    case for case in itertools.product(BACKBONES, POOLED, SIDES, CHECKS) if case[2:] != ("right", "export")
]
FEW = set(pairwise(EVERY))


def matrix(check):
    """Parametrizes a test with the cases of one of CHECKS."""
    cases = [
        pytest.param(*case[:3], marks=() if case in FEW else pytest.mark.slow)
        for case in EVERY
        if case[3] == check
    ]
    return pytest.mark.parametrize(("made", "pooled", "side"), cases, indirect=["made", "pooled"])


class Made(NamedTuple):
    """A backbone loaded once, from which encoders are made."""

    folder: Path
    backbone: Backbone
    number: int  # of its place in BACKBONES


@pytest.fixture(scope="session", params=BACKBONES)
def made(request) -> Made:
    folder, attention = BACKBONES[request.param]
    path = request.getfixturevalue(folder)
    return Made(path, Backbone.load(path, attention=attention), list(BACKBONES).index(request.param))


@cache
def tokenizer_of(folder: Path):
    return load_encoder(folder).process.tokenizer


def encoder_of(made: Made, pooled: str, side: str = "right") -> Encoder:
    """Prompts for queries, which are not pooled, and texts that end in an end token."""
    name, settings = POOLED[pooled]
    size = {"hidden_size": made.backbone.hidden_size, "num_layers": made.backbone.num_layers}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        pooling = named_pooling(name, **size, **settings)
        for parameter in pooling.parameters():
            if not parameter.any():  # what begins at zero would hide what it does
                nn.init.normal_(parameter, std=0.1)
    settings = {"include_prompt": False, "append_eos": True, "padding_side": side}
    process = TextTokenizer(tokenizer_of(made.folder), 64, prompts={"query": PROMPT}, **settings)
    return Encoder(made.backbone, pooling, process, max_tokens=10_000).eval()


def test_every_pooling_is_in_the_matrix():
    assert {name for name, _ in POOLED.values()} == set(POOLINGS)


@pytest.fixture(scope="session", params=POOLED)
def pooled(request) -> str:
    return request.param


@pytest.fixture(scope="session")
def alone(made, pooled) -> dict[str, Tensor]:
    """The embedding (L, M, D) of each text in a batch of its own: no padding, no neighbours."""
    encoder = encoder_of(made, pooled)
    with torch.no_grad():
        return {
            role: torch.cat([encoder(encoder.process([text], role), LAYERS).values for text in TEXTS], dim=1)
            for role in ("query", "document")
        }


@matrix("padding")
def test_padding_and_neighbours_change_nothing(made, pooled, alone, side):
    encoder = encoder_of(made, pooled, side)
    for role, order in itertools.product(("query", "document"), ([0, 1, 2, 3], [2, 1], [3, 1, 3])):
        tokens = encoder.process([TEXTS[row] for row in order], role)
        assert not tokens.mask.all()
        assert bool((tokens.prompt_len > 0).all()) == (role == "query")
        wider = (F.pad(part, (0, 7) if side == "right" else (7, 0)) for part in tokens[:2])
        for given in (tokens, Inputs(*wider, tokens.prompt_len)):
            with torch.no_grad():
                values = encoder(given, LAYERS).values
            torch.testing.assert_close(values, alone[role][:, order], rtol=0, atol=1e-5)


def test_an_empty_text_is_the_same_alone_and_in_a_batch(made, pooled):
    encoder = encoder_of(made, pooled)
    for role, side in (("query", "left"), ("document", "right")):
        encoder.process.padding_side = side
        with torch.no_grad():
            expected = encoder(encoder.process([""], role), LAYERS).values
            found = encoder(encoder.process([TEXTS[2], "", TEXTS[0]], role), LAYERS).values[:, 1:2]
        assert expected.isfinite().all()
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


class Spoiled(nn.Module):
    """A pooling that is shown nothing but noise outside the pool mask."""

    name: ClassVar[str] = "spoiled"

    def __init__(self, pooling: nn.Module) -> None:
        super().__init__()
        self.pooling = pooling
        self.needs_all_layers = pooling.needs_all_layers

    def forward(self, hiddens: Sequence[Tensor], mask: Tensor, layer: int) -> Tensor:
        outside = ~mask.unsqueeze(-1)
        return self.pooling([hidden.masked_fill(outside, float("nan")) for hidden in hiddens], mask, layer)


@matrix("prompt")
def test_nothing_of_a_prompt_or_padding_is_pooled(made, pooled, alone, side):
    encoder = encoder_of(made, pooled, side)
    tokens = encoder.process(TEXTS, "query")
    encoder.pooling = Spoiled(encoder.pooling)
    with torch.no_grad():
        values = encoder(tokens, LAYERS).values
    torch.testing.assert_close(values, alone["query"], rtol=0, atol=1e-5)


def oracle(folder: Path, encoder: Encoder) -> tuple[Tensor, Tensor]:
    """What plain sentence-transformers gives for the texts as queries and as documents."""
    own_code = any(folder.glob("embedtrain_*.py"))
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True, trust_remote_code=own_code)
    assert model.tokenizer.padding_side == ("left" if encoder.backbone.pads_anywhere else "right")
    return tuple(
        encode(list(TEXTS), convert_to_tensor=True, show_progress_bar=False)
        for encode in (model.encode_query, model.encode_document)
    )


def check_export(made: Made, pooled: str, side: str, sub: SubModel, folder: Path) -> None:
    encoder = encoder_of(made, pooled, side)
    expected = [encoder.encode(TEXTS, (sub.layer,), role).at(sub) for role in ("query", "document")]
    save_encoder(encoder, folder, sub)
    for found, value in zip(oracle(folder, encoder), expected, strict=True):
        torch.testing.assert_close(found, value, rtol=0, atol=1e-5)
    again = load_encoder(folder)
    assert (again.num_layers, again.width) == sub
    assert again.pooling.settings() == encoder.pooling.settings()
    for role, value in zip(("query", "document"), expected, strict=True):
        torch.testing.assert_close(again.encode(TEXTS, (sub.layer,), role).at(sub), value, rtol=0, atol=1e-6)


@matrix("export")
def test_an_exported_cut_is_the_trained_embedding(made, pooled, side, tmp_path):
    """Each family and each pooling meets every size."""
    sub = SUBS[(made.number + list(POOLED).index(pooled)) % 4]
    check_export(made, pooled, side, sub, tmp_path / "cut")


@pytest.mark.slow
@pytest.mark.parametrize("layer", [1, 4])
def test_an_exported_cut_is_the_trained_embedding_at_every_layer(made, pooled, tmp_path, layer):
    check_export(made, pooled, "left", SubModel(layer, 32), tmp_path / "cut")


def check_onnx(made: Made, pooled: str, sub: SubModel, folder: Path) -> None:
    import onnxruntime

    encoder = encoder_of(made, pooled)
    export_onnx(encoder, folder, sub)
    session = onnxruntime.InferenceSession(str(folder / FOLDER / FILE), providers=["CPUExecutionProvider"])
    for role, side in itertools.product(("query", "document"), SIDES):
        tokens: Inputs = encoder_of(made, pooled, side).process(TEXTS, role)
        given = {"input_ids": tokens.values, "attention_mask": tokens.mask.to(torch.int64)}
        _, found = run(session, given | {"prompt_len": tokens.prompt_len})
        expected = encoder.encode(TEXTS, (sub.layer,), role).at(sub)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("made", "pooled"), [("llama", "multi_layer-last_token")], indirect=True)
def test_an_onnx_graph_is_the_trained_embedding(made, pooled, tmp_path):
    """One takes seconds, in Python alone; test_onnx.py has BERT, test_trainable_poolings.py every pooling."""
    check_onnx(made, pooled, SubModel(2, 16), tmp_path / "onnx")


@pytest.mark.slow
def test_every_onnx_graph_is_the_trained_embedding(made, pooled, tmp_path):
    check_onnx(made, pooled, SubModel(3, 16), tmp_path / "onnx")
