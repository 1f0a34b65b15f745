"""The map of a retrieval task: ranks and neighbours of a search through all documents, positions of a PCA."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from tasks import swept

from embedtrain.evaluation import map_points
from embedtrain.evaluation.map_points import in_the_plane
from embedtrain.files.measured.points import map_files, read_map, write_map
from embedtrain.types import Cell, InputError

CELLS = [Cell(1, 4), Cell(3, 16), Cell(3, 16, "int8")]


@pytest.fixture
def data(tmp_path, write):
    texts = [
        f"{colour} {animal}"
        for colour in ("red", "green", "blue")
        for animal in ("cat", "dog", "bird", "fish")
    ]
    find = tmp_path / "retrieval/find"
    write(find / "queries.jsonl", [{"id": f"q{n}", "text": text} for n, text in enumerate(texts)])
    write(find / "corpus.jsonl", [{"id": f"d{n}", "text": f"a {text} runs"} for n, text in enumerate(texts)])
    judged = [{"query_id": f"q{n}", "corpus_id": f"d{n}", "score": 1} for n in range(len(texts))]
    write(find / "qrels.jsonl", judged)
    write(
        tmp_path / "sts/near/test.jsonl",
        [
            {"sentence1": "a", "sentence2": "b", "score": 1.0},
            {"sentence1": "c", "sentence2": "d", "score": 2.0},
        ],
    )
    return tmp_path


def test_ranks_and_neighbours_are_those_of_a_search(data, tmp_path, make_encoder):
    encoder = make_encoder()
    swept(encoder, data, CELLS, tmp_path / "out")
    (path,) = map_files(tmp_path / "out")
    about, points = read_map(path)
    assert (about.task, about.layer, about.dim, about.documents) == ("find", 3, 16, 12)
    queries = [point for point in points if point.kind == "query"]
    documents = [point for point in points if point.kind == "document"]
    assert (len(queries), len(documents)) == (12, 12)

    def unit(texts, role):
        vectors = encoder.encode(texts, (3,), role).values[0].numpy()
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    scores = (
        unit([point.text for point in queries], "query")
        @ unit([point.text for point in documents], "document").T
    )
    for query, row in zip(queries, scores, strict=True):
        (own,) = query.relevant
        assert points[own].text == f"a {query.text} runs"
        assert query.rank == 1 + int((row > row[own - 12]).sum())
        assert query.failed == (query.rank > 10)
        assert [place - 12 for place in query.near] == np.argsort(-row, kind="stable")[:5].tolist()


def test_large_corpora_have_no_map_and_many_queries_some(data, tmp_path, make_encoder, monkeypatch):
    monkeypatch.setattr(map_points, "QUERIES", 4)
    monkeypatch.setattr(map_points, "DOCUMENTS", 6)
    swept(make_encoder(), data, CELLS, tmp_path / "some")
    kinds = [point.kind for point in read_map(map_files(tmp_path / "some")[0]).points]
    assert (kinds.count("query"), kinds.count("document")) == (4, 6)
    monkeypatch.setattr(map_points, "CORPUS", 11)
    swept(make_encoder(), data, CELLS, tmp_path / "none")
    assert map_files(tmp_path / "none") == []


def test_the_plane_is_that_of_the_principal_components():
    vectors = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32) * np.arange(
        1, 9, dtype=np.float32
    )
    expected = PCA(2).fit_transform(vectors)
    assert np.abs(in_the_plane(vectors)) == pytest.approx(np.abs(expected), abs=1e-3)
    assert in_the_plane(vectors[:, :1]).shape == (40, 2)


def test_a_damaged_map_is_an_error_that_names_it(data, tmp_path, make_encoder):
    swept(make_encoder(), data, CELLS, tmp_path / "out")
    (path,) = map_files(tmp_path / "out")
    about, points = read_map(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"find\.parquet cannot be read"):
        read_map(path)
    write_map(tmp_path / "out", about, [points[0]._replace(near=(99,))])
    with pytest.raises(InputError, match="names a point that it does not have"):
        read_map(path)
