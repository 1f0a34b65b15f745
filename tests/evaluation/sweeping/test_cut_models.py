"""Cells of a sweep against mteb's scores of sentence-transformers on the folders that an export writes."""

from functools import partial

import pytest
import torch
from tasks import local_tasks, mteb_scores, swept

from embedtrain.files.scores import main_scores
from embedtrain.model.folder.export import load_encoder, save_encoder
from embedtrain.model.pooling import LatentAttention
from embedtrain.types import Cell

CELLS = (Cell(2, 8), Cell(3, 32), Cell(4, 32))
TASKS = ("mine", "colours", "find", "groups")


@pytest.fixture
def root(data_root, write):
    """The small data sets, and a clustering."""
    words = "red green blue cat dog bird runs sleeps eats house".split()
    rows = [
        {"text": f"{colour} {word} {other}", "label": colour}
        for colour in words[:3]
        for word in words[3:]
        for other in words[6:]
    ]
    write(data_root / "clustering/groups/test.jsonl", rows)
    return data_root


def score_of_export(encoder, root, folder, name, cell):
    """mteb's main score of the folder of one sub-model, its data and generators fresh."""
    import mteb
    from sentence_transformers import SentenceTransformer

    if not folder.exists():
        save_encoder(encoder, folder, cell.sub)
    model = SentenceTransformer(str(folder), device="cpu", trust_remote_code=True, local_files_only=True)
    (task,) = local_tasks(root, [name])
    wrapped = mteb.models.SentenceTransformerEncoderWrapper(model)
    return mteb_scores(wrapped, task)["main_score"]


def main_values(scores):
    return {(score.task, Cell(score.layer, score.dim)): score.value for score in main_scores(scores)}


def compare(encoder, root, tmp_path, names=TASKS):
    found = main_values(swept(encoder, root, CELLS, tmp_path / "sweep", names=names))
    for cell in CELLS:
        for name in names:
            expected = score_of_export(encoder, root, tmp_path / str(cell), name, cell)
            assert found[name, cell] == pytest.approx(expected, abs=1e-6), (name, cell)
    return found


def moved(encoder):
    """As if training had moved all that it can."""
    draw = torch.Generator().manual_seed(3)
    for parameter in encoder.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=draw)
    return encoder


def test_clustering_cells_draw_the_samples_and_seeds_of_mteb(tiny_bert, root, tmp_path):
    found = compare(load_encoder(tiny_bert), root, tmp_path, ["groups"])
    assert len(set(found.values())) == len(CELLS)  # not all perfect


def test_cells_of_a_decoder_with_adapters_and_latent_attention_equal_their_cut_exports(
    tiny_qwen3, root, tmp_path
):
    torch.manual_seed(1)  # with 0 one text lies between two clusters, and 1e-6 of rounding moves it
    encoder = load_encoder(
        tiny_qwen3,
        pooling=partial(LatentAttention, latents=8, heads=2, shared=False),
        attention="bidirectional",
        prompts={"query": "the question is "},
        lora={"rank": 4},
    )
    before = main_values(swept(encoder, root, CELLS, tmp_path / "before", names=TASKS))
    found = compare(moved(encoder), root, tmp_path)
    assert found != before
