import pytest
import torch
from tasks import swept

from embedtrain.evaluation.sweeping.adapter import Serving
from embedtrain.evaluation.vectors import streaming
from embedtrain.evaluation.vectors.bank import GridBank
from embedtrain.evaluation.vectors.search import search
from embedtrain.evaluation.vectors.storage import GIB, Keeping
from embedtrain.evaluation.vectors.streaming import Asked, Documents, search_all
from embedtrain.types import DTYPES, Cell
from embedtrain.vectors.dtypes import quantized

CELLS = tuple(Cell(layer, dim, dtype) for layer in (1, 3) for dim in (4, 16) for dtype in DTYPES)
# many equal texts, so that ties at the border are the rule
TEXTS = [f"{'red green blue cat dog'.split()[number % 5]} {number % 23}" for number in range(150)]
IDS = [f"d{(number * 37) % 150}" for number in range(150)]


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(streaming, "_MOST_TEXTS", 16)


def documents():
    return Documents(IDS, lambda start, end: TEXTS[start:end], "document", None)


@pytest.mark.parametrize("cut_first", [True, False])
@pytest.mark.parametrize("top_k", [1, 7, 40, 500])
def test_every_cell_finds_in_one_pass_what_it_finds_in_memory(make_encoder, small_chunks, top_k, cut_first):
    encoder = make_encoder()
    bank = GridBank(encoder, [1, 3], lambda count: None)
    serving = Asked([f"q{number}" for number in range(9)], {}, top_k, cut_first, 2)
    queries = encoder.encode(TEXTS[3:12], [1, 3], "query")
    asked = serving._replace(queries={cell: serving.unit(queries, cell) for cell in CELLS})
    encoder.texts.clear()
    found = search_all(bank, documents(), asked)
    assert len(bank) == 0
    assert len(encoder.texts) == 2 * sum(len(set(TEXTS[start : start + 16])) for start in range(0, 150, 16))
    values = encoder.encode(TEXTS, [1, 3])
    for cell in CELLS:
        docs = quantized(IDS, asked.unit(values, cell), cell.dtype, 2)
        expected = search(asked.query_ids, asked.queries[cell], docs, top_k)
        for name, hits in expected.items():
            assert sorted(found[cell][name].values()) == pytest.approx(sorted(hits.values()), abs=1e-6)
            for doc_id in hits.keys() & found[cell][name].keys():
                assert found[cell][name][doc_id] == pytest.approx(hits[doc_id], abs=1e-6)
        if cell.dtype == "binary":  # whose similarities have no rounding: equal ones are decided alike
            assert [set(hits) for hits in found[cell].values()] == [set(hits) for hits in expected.values()]


# equal documents would be ranked by the rounding of their similarities, which is another in parts
SWEPT = (
    Cell(1, 4),
    Cell(3, 16),
    *(Cell(3, 16, dtype) for dtype in ("int8", "binary", "binary_rescore_int8")),
)


@pytest.fixture
def distinct(tmp_path, write):
    folder = tmp_path / "distinct/retrieval/find"
    names = [f"{first} {second}" for first in "abcdefg" for second in "uvwxyz"][:40]
    write(
        folder / "corpus.jsonl", [{"id": f"d{n}", "title": "", "text": text} for n, text in enumerate(names)]
    )
    write(folder / "queries.jsonl", [{"id": f"q{n}", "text": f"{names[n]} q"} for n in range(10)])
    relevant = [(n, n + k) for n in range(10) for k in range(3)]
    write(
        folder / "qrels.jsonl",
        [{"query_id": f"q{n}", "corpus_id": f"d{doc}", "score": 1} for n, doc in relevant],
    )
    return tmp_path / "distinct"


def sweep_find(encoder, root, folder, keeping, cells=SWEPT, **settings):
    return swept(encoder, root, cells, folder, names=["find"], keeping=keeping, workers=1, **settings)


def test_little_room_gives_the_scores_of_much(make_encoder, distinct, tmp_path, small_chunks):
    serving = Serving("pre", 2)
    expected = sweep_find(make_encoder(), distinct, tmp_path / "much", Keeping(), serving=serving)
    little = Keeping(memory_gb=30 * 2 * 16 * 4 / GIB)  # the 10 queries, not the 40 documents
    encoder = make_encoder()
    assert sweep_find(encoder, distinct, tmp_path / "little", little, serving=serving) == expected
    documents = [text for role, text in encoder.texts if role == "document"]
    assert len(documents) == 2 * len(set(documents))  # once for the ranges of int8
    plain = make_encoder()
    cells = [cell for cell in SWEPT if "int8" not in cell.dtype]
    sweep_find(plain, distinct, tmp_path / "plain", little, cells, serving=serving)
    assert len(plain.texts) == len(set(plain.texts))


def test_a_store_with_room_is_used_instead_and_finds_the_corpus_again(make_encoder, distinct, tmp_path):
    store = Keeping(tmp_path / "store", memory_gb=0.0)
    expected = sweep_find(make_encoder(), distinct, tmp_path / "memory", Keeping())
    assert sweep_find(make_encoder(), distinct, tmp_path / "first", store) == expected
    again = make_encoder()
    full = sum(path.stat().st_size for path in (tmp_path / "store").rglob("*.vectors")) / GIB
    assert sweep_find(again, distinct, tmp_path / "second", store._replace(store_gb=full)) == expected
    assert again.calls == 0


def test_float16_is_the_same_whether_kept_or_streamed(make_encoder, distinct, tmp_path, small_chunks):
    little = Keeping(memory_gb=30 * 2 * 16 * 2 / GIB, dtype="float16")
    expected = sweep_find(make_encoder(), distinct, tmp_path / "much", Keeping(dtype="float16"))
    assert sweep_find(make_encoder(), distinct, tmp_path / "little", little) == expected


def test_a_chunk_is_as_large_as_its_vectors_allow(make_encoder, monkeypatch):
    monkeypatch.setattr(streaming, "_CHUNK_BYTES", 40 * 2 * 16 * 4)
    encoder, sizes = make_encoder(), []
    bank = GridBank(encoder, [1, 3], sizes.append)
    for start, values in streaming._chunks(bank, documents()):
        assert values.values.shape == (2, min(40, 150 - start), 16)
        assert torch.equal(values.values, encoder.encode(TEXTS[start : start + 40], [1, 3]).values)
    assert sizes == sorted(sizes)
