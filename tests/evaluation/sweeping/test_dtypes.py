"""int8 and binary cells against sentence-transformers' definitions and slow, obvious searches."""

import mteb
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sentence_transformers.util.quantization import _dequantize_embeddings, quantize_embeddings
from tasks import served, swept

from embedtrain.evaluation.sweeping.adapter import Serving
from embedtrain.evaluation.vectors.search import rerank, search
from embedtrain.files.scores import main_scores
from embedtrain.types import DTYPES, Cell
from embedtrain.vectors.dtypes import Corpus, from_int8, int8, ranges_of, signs, through_int8


def unit(count, dim, seed):
    return F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_int8_and_signs_are_those_of_sentence_transformers():
    sample, others = unit(200, 33, 0), 3 * unit(50, 33, 1)
    sample[:, 3] = 0.1  # a coordinate that never varies
    ranges = ranges_of(sample)
    codes = int8(others, ranges)
    expected = quantize_embeddings(others.numpy(), "int8", ranges=ranges.numpy())
    assert np.array_equal(codes.numpy(), expected)
    assert {-128, 127} <= set(codes.flatten().tolist())
    values = _dequantize_embeddings(expected, "int8", ranges.numpy())
    assert np.allclose(from_int8(codes, ranges).numpy(), values, atol=1e-7)
    bits = np.unpackbits(quantize_embeddings(others.numpy(), "ubinary"), axis=1)[:, :33]
    assert np.array_equal(signs(others).numpy(), 2.0 * bits - 1)


def test_binary_search_ranks_by_hamming_distance():
    queries, docs = unit(5, 40, 0), unit(30, 40, 1)
    corpus = Corpus([f"d{n}" for n in range(30)], signs(docs), signs(docs))
    found = search([f"q{n}" for n in range(5)], queries, corpus, 8)
    for number in range(5):
        distance = ((queries[number] > 0) != (docs > 0)).sum(dim=1)
        expected = {f"d{n}": 1 - 2 * int(distance[n]) / 40 for n in range(30)}
        mine = found[f"q{number}"]
        assert mine == pytest.approx({name: expected[name] for name in mine})
        assert sorted(mine.values()) == pytest.approx(sorted(expected.values())[-8:])


@pytest.mark.parametrize("kind", ["binary", "int8"])
def test_rescoring_ranks_what_signs_find_by_the_float_query(kind):
    queries, docs = unit(6, 24, 0), unit(50, 24, 1)
    kept = signs(docs) if kind == "binary" else through_int8(docs, ranges_of(docs))
    ids = [f"d{n:02}" for n in range(50)]
    found = search([f"q{n}" for n in range(6)], queries, Corpus(ids, kept, signs(docs), 3), 4)
    for number, query in enumerate(queries):
        agreeing = signs(query[None]) @ signs(docs).T  # (1, 50)
        candidates = sorted(range(50), key=lambda n: (float(agreeing[0, n]), ids[n]))[-12:]
        cosine = {n: float(F.cosine_similarity(query, kept[n], dim=0)) for n in candidates}
        expected = sorted(candidates, key=lambda n: -cosine[n])[:4]
        mine = found[f"q{number}"]
        assert sorted(mine, key=lambda name: -mine[name]) == [ids[n] for n in expected]
        assert list(mine.values()) == pytest.approx([cosine[int(name[1:])] for name in mine], abs=1e-6)


def test_rescoring_gives_the_documents_of_sentence_transformers():
    pytest.importorskip("faiss", reason="faiss is not installed")
    from sentence_transformers.util.quantization import semantic_search_faiss

    queries, docs = unit(8, 64, 0), unit(300, 64, 1)
    packed = quantize_embeddings(docs.numpy(), "ubinary")
    theirs, _ = semantic_search_faiss(
        queries.numpy(), packed, corpus_precision="ubinary", top_k=5, rescore_multiplier=60
    )
    ids = [f"d{n}" for n in range(300)]
    mine = search([f"q{n}" for n in range(8)], queries, Corpus(ids, signs(docs), signs(docs), 60), 5)
    for number, found in enumerate(theirs):
        assert {ids[hit["corpus_id"]] for hit in found} == set(mine[f"q{number}"])


def test_reranking_searches_the_given_documents_alone():
    queries, docs = unit(2, 16, 0), unit(10, 16, 1)
    ids = [f"d{n}" for n in range(10)]
    corpus = Corpus(ids, docs)
    found = rerank(["a", "b"], queries, corpus, {"a": ["d3", "d7", "d1"]}, 2)
    assert found["b"] == {}
    expected = {name: float(queries[0] @ docs[int(name[1])]) for name in ("d1", "d3", "d7")}
    del expected[min(expected, key=expected.get)]
    assert found["a"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("dtype", ["int8", "binary"])
def test_every_mock_task_of_mteb_passes_for_quantised_cells(make_encoder, dtype):
    outcome = mteb.mock_run(served(make_encoder(), Cell(3, 8, dtype)))
    assert outcome.all_passed, outcome.to_markdown()


def test_every_dtype_is_scored_on_every_kind_of_task(make_encoder, data_root, tmp_path):
    cells = [Cell(3, 16, dtype) for dtype in DTYPES]
    scores = swept(make_encoder(), data_root, cells, tmp_path)
    found = {(score.task, score.dtype): score.value for score in main_scores(scores)}
    assert len(found) == 4 * len(DTYPES)
    for task in ("mine", "twins", "colours"):  # without a search there is nothing to rank again
        assert found[task, "binary"] == found[task, "binary_rescore"] == found[task, "binary_rescore_int8"]
    assert found["find", "int8"] == pytest.approx(found["find", "float32"], abs=0.05)
    assert found["find", "binary"] != found["find", "float32"]
    folders = {path.name for path in (tmp_path / "mteb/results/embedtrain__mine/w/experiments").iterdir()}
    names = ("int8", "binary", "binary__rescore_4_binary", "binary__rescore_4_int8")
    assert folders == {f"output_dtypes_{name}" for name in names}


def test_the_ranges_of_a_task_are_those_of_its_first_texts(make_encoder):
    encoder = make_encoder()
    cell = served(encoder, Cell(3, 16, "int8"))
    task = mteb.get_task("STS12").metadata

    class Loader:
        def __init__(self, texts):
            self.dataset = {"text": texts}

    left, right = ["red cat", "blue dog", "bird"], ["small house", "river"]
    cell.encode(Loader(left), task_metadata=task, hf_subset="default")
    found = cell.encode(Loader(right), task_metadata=task, hf_subset="default")
    first, second = (encoder.encode(texts, [3]).at(Cell(3, 16).sub) for texts in (left, right))
    assert np.array_equal(found, through_int8(second, ranges_of(first)).numpy())


def test_normalised_before_the_cut_is_the_cut_alone(make_encoder):
    encoder = make_encoder()
    task = mteb.get_task("STS12").metadata

    class Loader:
        dataset = {"text": ["red cat", "blue dog"]}  # noqa: RUF012

    whole = encoder.encode(Loader.dataset["text"], [3]).at(Cell(3, 16).sub)
    pre = served(encoder, Cell(3, 4), serving=Serving("pre"))
    assert np.array_equal(pre.encode(Loader(), task_metadata=task), whole[:, :4].numpy())
    assert pre.mteb_model_meta.experiment_kwargs == {"embed_dim": 4, "n_layers": 3, "normalize": "pre"}
    post = served(encoder, Cell(3, 4)).encode(Loader(), task_metadata=task)
    assert np.allclose(np.linalg.norm(post, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "size"),
    [("float32", 400), ("int8", 100), ("binary", 13), ("binary_rescore", 13), ("binary_rescore_int8", 113)],
)
def test_a_cell_says_its_bytes(dtype, size):
    assert Cell(3, 100, dtype).bytes_per_vector == size
