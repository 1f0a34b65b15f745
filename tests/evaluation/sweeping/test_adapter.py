import mteb
import pytest
import torch
from mteb.models import SearchEncoderWrapper
from tasks import local_tasks, mteb_scores, official_tasks, served

from embedtrain.evaluation.vectors.bank import GridBank
from embedtrain.types import Cell, Embeddings, SubModel


class StockCell:
    """The same cell without the search hook: mteb searches with its own loop."""

    def __init__(self, cell):
        self.encode, self.similarity = cell.encode, cell.similarity
        self.similarity_pairwise, self.mteb_model_meta = cell.similarity_pairwise, cell.mteb_model_meta


def test_vectors_are_truncated_then_normalised_and_new_texts_keep_the_old(make_encoder):
    encoder = make_encoder()
    bank = GridBank(encoder, [3, 1], lambda texts: None)
    first = bank.vectors(["red cat", "blue dog", "red cat"], "document", SubModel(1, 4))
    bank.vectors([f"text {n}" for n in range(50)], "document", SubModel(1, 4))
    again = bank.vectors(["blue dog", "red cat"], "document", SubModel(1, 4))
    expected = encoder.encode(["blue dog", "red cat"], [1]).at(SubModel(1, 4))
    assert torch.equal(again, expected)
    assert torch.equal(first, expected[[1, 0, 1]])
    assert torch.allclose(first.norm(dim=1), torch.ones(3))
    with pytest.raises(ValueError, match="layer 2 was not encoded"):
        bank.vectors(["red cat"], "document", SubModel(2, 4))


def test_a_query_and_a_document_of_equal_text_are_two_texts(make_encoder):
    encoder = make_encoder()
    bank = GridBank(encoder, [1], lambda texts: None)
    for role in ("query", "document", "query"):
        bank.vectors(["red cat"], role, SubModel(1, 4))
    assert encoder.texts == [("query", "red cat"), ("document", "red cat")]
    assert len(bank) == 2


def test_a_text_behind_another_prompt_is_another_vector(make_encoder):
    encoder = make_encoder(prompts={"query": "find: "})
    bank = GridBank(encoder, [1], lambda texts: None)
    sub = SubModel(1, 4)
    own, given, none, again = (
        bank.vectors(["red cat"], "query", sub, prompt) for prompt in (None, "alike: ", "", "alike: ")
    )
    assert encoder.texts == [("query", f"{before}red cat") for before in ("find: ", "alike: ", "")]
    assert torch.equal(given, again)
    assert not torch.allclose(own, given)
    assert not torch.allclose(none, given)
    assert torch.equal(none, make_encoder().encode(["red cat"], [1]).at(sub))


PROMPTS = {"query": "find: ", "document": "read: "}


@pytest.mark.parametrize(
    ("task", "prompts", "expected"),
    [
        ("find", PROMPTS, {("query", "find:"), ("document", "read:")}),
        ("find", {**PROMPTS, "Retrieval-query": "seek: "}, {("query", "seek:"), ("document", "read:")}),
        ("find", {**PROMPTS, "find": "any: "}, {("query", "any:"), ("document", "any:")}),
        ("mine", PROMPTS, {("document", "read:")}),
        ("mine", {**PROMPTS, "STS": "alike: "}, {("document", "alike:")}),
        ("mine", {**PROMPTS, "STS": "alike: ", "mine": "own: "}, {("document", "own:")}),
        ("colours", {**PROMPTS, "Classification": "sort: "}, {("document", "sort:")}),
    ],
)
def test_the_prompt_is_that_of_the_task_its_type_or_the_role(
    make_encoder, data_root, task, prompts, expected
):
    (found,) = local_tasks(data_root, [task])
    encoder = make_encoder(prompts=prompts)
    mteb_scores(served(encoder, Cell(1, 4)), found)
    assert {(role, text.split()[0]) for role, text in encoder.texts} == expected


def test_the_encoder_gets_its_threads_back_inside_limited_scoring(make_encoder):
    seen = []

    class Watched(make_encoder):
        def encode(self, texts, layers, role="document", progress=None, *, prompt=None):
            seen.append(torch.get_num_threads())
            return super().encode(texts, layers, role, progress, prompt=prompt)

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        bank = GridBank(Watched(), [1], lambda texts: None)
        torch.set_num_threads(1)
        bank.vectors(["red"], "query", SubModel(1, 4))
        assert (seen, torch.get_num_threads()) == ([2], 1)
    finally:
        torch.set_num_threads(threads)


def test_an_encoder_that_gives_other_layers_is_refused(make_encoder):
    class Wrong(make_encoder):
        def encode(self, texts, layers, role="document", progress=None, *, prompt=None):
            return Embeddings(torch.zeros(1, len(texts), self.width), (3,))

    with pytest.raises(ValueError, match=r"asked for layers \[1\], the encoder gave \[3\]"):
        GridBank(Wrong(), [1], lambda texts: None).vectors(["a"], "query", SubModel(1, 4))


@pytest.mark.parametrize("k_values", [(1, 3, 5, 10, 20, 100), (1, 5, 10)])
def test_search_gives_the_scores_of_mtebs_own_loop(make_encoder, data_root, k_values):
    (task,) = local_tasks(data_root, ["find"])
    type(task).k_values, task._top_k = k_values, max(k_values)
    for size in (Cell(1, 4), Cell(3, 16), Cell(3, 16, "int8")):
        cell = served(make_encoder(), size)
        assert mteb_scores(cell, task) == mteb_scores(StockCell(cell), task)


def test_search_keeps_what_mtebs_loop_keeps_where_similarities_are_equal(make_encoder):
    from datasets import Dataset

    cell = served(make_encoder(), Cell(1, 4))
    corpus = Dataset.from_list([{"id": f"d{n}", "title": "", "text": "red cat"} for n in range(3)])
    queries = Dataset.from_list([{"id": "q", "text": "red cat"}])
    settings = {"task_metadata": mteb.get_task("STS12").metadata, "hf_split": "test", "hf_subset": "default"}
    settings |= {"encode_kwargs": {"show_progress_bar": False}, "num_proc": None}
    found = []
    for searcher in (cell, SearchEncoderWrapper(cell)):
        searcher.index(corpus, **settings)
        found.append(searcher.search(queries, top_k=2, **settings))
    assert found[0] == found[1]
    assert set(found[0]["q"]) == {"d1", "d2"}


def test_plain_labels_give_stock_classification_scores(make_encoder, data_root):
    from mteb.abstasks import AbsTaskClassification

    (task,) = local_tasks(data_root, ["colours"])
    cell = served(make_encoder(), Cell(1, 4))
    quick = mteb_scores(cell, task)
    for method in ("_evaluate_subset", "_undersample_data", "_run_experiment"):
        setattr(type(task), method, getattr(AbsTaskClassification, method))
    assert mteb_scores(cell, task) == quick
    assert 0 < quick["accuracy"] < 1


def test_no_column_of_a_classification_is_read_by_elements(make_encoder, data_root, monkeypatch):
    from datasets.arrow_dataset import Column

    read = []
    whole, stock = Column.__getitem__, Column.__iter__
    monkeypatch.setattr(Column, "__getitem__", lambda self, key: read.append(key) or whole(self, key))
    monkeypatch.setattr(Column, "__iter__", lambda self: read.append("iter") or stock(self))
    (task,) = local_tasks(data_root, ["colours"])
    mteb_scores(served(make_encoder(), Cell(1, 4)), task)
    assert read
    assert all(isinstance(key, slice) for key in read)


def test_every_mock_task_of_mteb_passes(make_encoder):
    outcome = mteb.mock_run(served(make_encoder(), Cell(3, 8)))
    ran = {name: status for name, status in outcome.items() if status is not None}
    assert outcome.all_passed, outcome.to_markdown()
    assert len(ran) >= 25


def test_a_stock_classification_task_of_mteb_gets_plain_labels_others_stay():
    from embedtrain.evaluation.catalogue.official.plain_labels import PlainLabels

    banking, sts = official_tasks(["Banking77Classification", "STSBenchmark"])
    assert isinstance(banking, PlainLabels)
    assert banking.metadata.name == "Banking77Classification"
    assert not isinstance(sts, PlainLabels)
