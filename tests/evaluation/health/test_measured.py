"""health.jsonl of a sweep: from vectors that are encoded anyway, the same lines whoever measures them."""

import pytest
import torch
from tasks import local_tasks, swept

from embedtrain.evaluation.vectors.bank import GridBank
from embedtrain.files.measured.health import read_health
from embedtrain.types import Cell

CELLS = [Cell(1, 4), Cell(3, 4), Cell(3, 16), Cell(3, 16, "int8")]
SUBS = [(1, 4), (3, 4), (3, 16)]


@pytest.fixture
def data(tmp_path, write):
    texts = [f"{colour} {animal}" for colour in ("red", "green", "blue") for animal in ("cat", "dog", "bird")]
    pairs = [(one, other, 5.0 if one == other else 0.0) for one in texts for other in texts[:3]]
    rows = [{"sentence1": one, "sentence2": f"the {other}", "score": score} for one, other, score in pairs]
    find = tmp_path / "retrieval/find"
    write(tmp_path / "sts/near/test.jsonl", rows)
    write(find / "queries.jsonl", [{"id": f"q{n}", "text": text} for n, text in enumerate(texts)])
    write(find / "corpus.jsonl", [{"id": f"d{n}", "text": f"a {text} runs"} for n, text in enumerate(texts)])
    judged = [{"query_id": f"q{n}", "corpus_id": f"d{n}", "score": 1} for n in range(len(texts))]
    write(find / "qrels.jsonl", judged)
    return tmp_path


def test_every_sub_model_of_every_task_has_a_line_and_nothing_more_is_encoded(data, tmp_path, make_encoder):
    encoder = make_encoder()
    swept(encoder, data, CELLS, tmp_path / "out")
    lines = read_health(tmp_path / "out")
    assert [(line.layer, line.dim) for line in lines] == SUBS * 2
    assert {(line.run, line.step, line.weights) for line in lines} == {("mine", 0, "w")}
    assert all(line.pairs > 2 and line.alignment is not None for line in lines)
    assert all(sum(line.positive) == line.pairs for line in lines)
    assert [line.cka for line in lines if (line.layer, line.dim) == (3, 16)] == pytest.approx([1, 1])
    assert len(encoder.texts) == len(set(encoder.texts)), "a text was encoded twice"


def test_positives_are_nearer_than_others(data, tmp_path, make_encoder):
    swept(make_encoder(), data, CELLS, tmp_path / "out")
    for line in read_health(tmp_path / "out"):
        assert line.alignment < 2 - 2 * line.mean_cosine


def test_lines_are_the_same_when_measured_again_with_other_weights(data, tmp_path, make_encoder):
    folder = tmp_path / "out"
    swept(make_encoder(), data, CELLS, folder)
    first = read_health(folder)
    swept(make_encoder(), data, CELLS, folder)  # nothing is left to do
    assert read_health(folder) == first
    swept(make_encoder(seed=1), data, CELLS, folder, revision="v")
    again = read_health(folder)
    assert {line.weights for line in again} == {"v"}
    assert len(again) == len(first)


def test_tasks_without_pairs_have_lines_without_alignment(tmp_path, write, make_encoder):
    rows = [{"text": f"{word} number {n}", "label": word} for word in ("red", "blue") for n in range(12)]
    write(tmp_path / "classification/colour/train.jsonl", rows)
    write(tmp_path / "classification/colour/test.jsonl", rows)
    tasks = local_tasks(tmp_path)
    swept(make_encoder(), tasks, CELLS, tmp_path / "out")
    lines = read_health(tmp_path / "out")
    assert [(line.alignment, line.positive, line.pairs) for line in lines] == [(None, (), 0)] * 3


def test_a_look_at_the_vectors_that_fails_costs_no_score(data, tmp_path, make_encoder, monkeypatch, caplog):
    whole = swept(make_encoder(), data, CELLS, tmp_path / "whole")
    monkeypatch.setattr("embedtrain.evaluation.sweeping.scoring.map_of", lambda *_, **__: 1 / 0)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/health.jsonl").write_text("{oops\n")
    assert swept(make_encoder(), data, CELLS, tmp_path / "out") == whole
    assert caplog.text.count("no health or map of its vectors") == 2
    assert "health.jsonl:1" in caplog.text


def test_vectors_that_are_not_finite_have_no_health_and_no_map(
    data, tmp_path, make_encoder, monkeypatch, caplog
):
    monkeypatch.setattr(GridBank, "of", lambda _, texts, sub: torch.full((len(texts), sub.dim), torch.nan))
    swept(make_encoder(), data, [Cell(3, 16)], tmp_path / "out")
    assert "no health or map" not in caplog.text
    assert read_health(tmp_path / "out") == []
    assert not list((tmp_path / "out").rglob("*.parquet"))
