"""Scores in a card, as the hub's own library reads them back."""

import pytest
from huggingface_hub import ModelCard

from embedtrain.files.scores import TaskFacts, add_tasks, read_tasks
from embedtrain.model.folder.cards.card import Story, model_index
from embedtrain.model.folder.describe import parameter_count
from embedtrain.model.folder.export import load_encoder, save_encoder
from embedtrain.types import InputError, Score, SubModel

TASKS = {
    "STSBenchmark": TaskFacts("STS", "sentence-similarity", "mteb/stsbenchmark-sts", "b0", "default", True),
    "mine": TaskFacts("STS", "sentence-similarity", "local", "c1", "default", False),
}
SCORES = [
    Score("run", 5, task, "test", 2, 16, metric, value)
    for task, metric, value in (
        ("STSBenchmark", "cosine_spearman", 0.82),
        ("STSBenchmark", "cosine_pearson", 0.8),
        ("mine", "cosine_spearman", 0.5),
        ("unknown", "cosine_spearman", 0.1),
    )
]


def test_the_hub_reads_the_scores_of_a_saved_cut(tiny_bert, tmp_path):
    index = model_index("cut", SCORES, TASKS)
    save_encoder(load_encoder(tiny_bert), tmp_path / "cut", SubModel(2, 16), story=Story(index))
    data = ModelCard.load(tmp_path / "cut/README.md").data
    found = {(item.dataset_name, item.metric_type): item for item in data.eval_results}
    official = found["STSBenchmark (default)", "cosine_spearman"]
    assert (
        official.metric_value,
        official.dataset_type,
        official.dataset_revision,
        official.source_name,
    ) == (*(0.82, "mteb/stsbenchmark-sts"), *("b0", "MTEB"))
    assert found["mine (local)", "cosine_spearman"].metric_value == 0.5
    assert len(found) == 2, "main metrics of known tasks"
    assert data.library_name == "sentence-transformers"


def test_without_scores_there_is_no_index(tiny_bert, tmp_path):
    assert model_index("cut", [], TASKS) == ""
    save_encoder(load_encoder(tiny_bert), tmp_path / "plain")
    assert "model-index" not in (tmp_path / "plain/README.md").read_text("utf-8")


def test_tasks_are_added_and_read_back(tmp_path):
    file = tmp_path / "tasks.json"
    assert read_tasks(file) == {}
    add_tasks(file, {"mine": TASKS["mine"]})
    add_tasks(file, {"STSBenchmark": TASKS["STSBenchmark"], "mine": TASKS["mine"]._replace(revision="d2")})
    assert read_tasks(file) == {**TASKS, "mine": TASKS["mine"]._replace(revision="d2")}
    file.write_text('{"mine": {"what": 1}}')
    with pytest.raises(InputError, match="cannot be read"):
        read_tasks(file)


def test_parameters_are_those_of_the_cut_folder(tiny_bert, tmp_path):
    """But for the pooler, which a Hugging Face folder keeps and no embedding uses."""
    encoder = load_encoder(tiny_bert)
    for layer in (1, 2, 4):
        save_encoder(encoder, tmp_path / str(layer), SubModel(layer, 32))
        cut = load_encoder(tmp_path / str(layer))
        pooler = sum(item.numel() for item in cut.backbone.pooler.parameters())
        assert parameter_count(encoder, layer) == sum(item.numel() for item in cut.parameters()) - pooler
