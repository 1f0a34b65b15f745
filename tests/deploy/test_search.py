"""Stores run for real: what they return is our own exact search, and their nDCG is what was measured."""

import ast
import json
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from searching import K, check, loaded, ours
from small_runs import command, read_rows, write_rows

import embedtrain
from embedtrain.files.scores import read_scores
from embedtrain.model.folder.export import load_encoder, save_encoder
from embedtrain.types import InputError, SubModel

SEARCHES = {"funnel": ([(2, 8), (4, 16), (4, 32)], [12, 8]), "cut": ([(4, 32)], [])}
FUNNEL = "funnel={cells:[[2,8],[4,16],[4,32]],keep:[12,8]}"
PROMPTS = {"query": "find: ", "document": "the "}


@pytest.fixture(scope="module")
def texts(small_data):
    """(documents, queries)"""
    rows = read_rows(small_data / "train.jsonl")
    return [row["positive"] for row in rows], [row["query"] for row in rows[:16]]


@pytest.fixture(scope="module")
def measured(tiny_bert, small_data, tmp_path_factory):
    """A folder with the model, whose queries and documents have prompts, and its scores."""
    folder = tmp_path_factory.mktemp("measured")
    save_encoder(load_encoder(tiny_bert, pooling="mean", max_length=32, prompts=PROMPTS), folder / "model")
    funnels = [{"cells": [list(cell) for cell in SEARCHES["funnel"][0]], "keep": SEARCHES["funnel"][1]}]
    embedtrain.evaluate(
        folder / "model", tasks=["find"], data_root=str(small_data), layers=[4], dims=[32], funnels=funnels,
        output=str(folder), store="none",
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def exported(measured, tmp_path_factory):
    """The folder of the funnel, and that of the cut."""
    root, stores = tmp_path_factory.mktemp("exported"), "for=pgvector,qdrant,elasticsearch,faiss,usearch"
    command("export", f"model={measured}/model", f"out={root}/funnel", FUNNEL, stores)
    command("export", f"model={measured}/model", f"out={root}/cut", stores)
    return root


@pytest.mark.parametrize("searched", SEARCHES)
@pytest.mark.parametrize("name", ["faiss", "usearch"])
def test_an_index_finds_what_we_find_and_has_the_ndcg_that_was_measured(
    exported, measured, texts, small_data, name, searched, capsys
):
    pytest.importorskip(name)
    index = loaded(exported / searched / "for" / name / "index.py")
    documents, queries = (
        index.embed(some, role) for some, role in zip(texts, ("document", "query"), strict=True)
    )
    numbers, cosines = index.search(index.build(documents[index.STAGES[0]]), documents, queries, K)
    found = [list(zip(*row, strict=True)) for row in zip(numbers.tolist(), cosines.tolist(), strict=True)]
    check(found, ours(measured / "model", texts, *SEARCHES[searched]))

    dtype = "funnel(L2_D8>12>L4_D16>8>L4_D32)" if searched == "funnel" else "float32"
    scores = [one for one in read_scores(measured / "scores.jsonl") if one.dtype == dtype]
    (score,) = [one.value for one in scores if one.metric == "ndcg_at_10"]
    assert index.MEASURED == {"find": score}
    assert index.main(small_data / "retrieval" / "find") == pytest.approx(score, abs=1e-5)
    assert f"embedtrain measured {score:.5f}" in capsys.readouterr().out


def test_an_index_of_other_data_is_not_what_was_measured(exported, small_data, tmp_path):
    pytest.importorskip("faiss")
    for name in ("corpus", "queries", "qrels"):
        rows = read_rows(small_data / f"retrieval/find/{name}.jsonl")
        write_rows(tmp_path / f"find/{name}.jsonl", [row | {"text": "a cat"} for row in rows])
    index = loaded(exported / "cut/for/faiss/index.py")
    with pytest.raises(SystemExit, match="other data, or another model"):
        index.main(tmp_path / "find")


@pytest.mark.parametrize("searched", SEARCHES)
def test_qdrant_finds_what_we_find(exported, measured, texts, searched):
    client = pytest.importorskip("qdrant_client").QdrantClient(":memory:")
    script = loaded(exported / searched / "for/qdrant/client.py")
    script.create(client)
    script.add(client, range(len(texts[0])), texts[0])
    found = [script.search(client, query, K) for query in texts[1]]
    check(found, ours(measured / "model", texts, *SEARCHES[searched]))


def test_the_example_of_the_page_runs(exported, tmp_path, monkeypatch, capsys):
    pytest.importorskip("qdrant_client")
    (tmp_path / "served").symlink_to(exported / "funnel")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.delitem(sys.modules, "client", raising=False)
    page = (Path(__file__).parents[2] / "docs/stores.md").read_text("utf-8")
    exec(re.findall(r"```python\n(import sys.*?)```", page, flags=re.S)[0], {})
    found = ast.literal_eval(capsys.readouterr().out)
    assert len(found) == 2
    assert {number for number, _ in found} < {1, 2, 3}


def test_bodies_for_elasticsearch_hold_the_vectors(exported, measured, texts):
    script = loaded(exported / "funnel/for/elasticsearch/embed.py")
    encoder = load_encoder(measured / "model")
    (document,), body = script.documents(texts[0][:1]), script.query(texts[1][0])
    assert "<" not in json.dumps(body)
    for layer, dim in SEARCHES["funnel"][0]:
        vector = encoder.encode(texts[0][:1], (layer,), "document").at(SubModel(layer, dim))[0]
        torch.testing.assert_close(torch.tensor(document[f"L{layer}_D{dim}"]), vector, rtol=0, atol=1e-6)
    vector = encoder.encode(texts[1][:1], (2,), "query").at(SubModel(2, 8))[0]
    torch.testing.assert_close(torch.tensor(body["query"]["knn"]["query_vector"]), vector, rtol=0, atol=1e-6)


def vectors_of(graph, tokenizer, texts):
    """What a store computes: each text alone through its own tokenizer and the graph, the first output."""
    import onnxruntime
    from tokenizers import Tokenizer

    session, read = onnxruntime.InferenceSession(graph), Tokenizer.from_str(tokenizer.decode())
    found = []
    for text in texts:
        coded = read.encode(text)
        feed = {
            "input_ids": coded.ids,
            "attention_mask": coded.attention_mask,
            "token_type_ids": coded.type_ids,
        }
        names = [item.name for item in session.get_inputs()]
        found.append(session.run(None, {name: np.array([feed[name]]) for name in names})[0][0])
    return torch.tensor(np.array(found))


def test_graphs_for_vespa_and_opensearch_give_our_vectors(measured, texts, tmp_path, monkeypatch):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    from embedtrain.model.folder import onnx

    words = ["layer=2", "dim=8", "for=[vespa,opensearch]"]
    monkeypatch.setattr(onnx, "quantize", None)  # stores have no use for it
    command("export", f"model={measured}/model", f"out={tmp_path}/out", *words)
    encoder, documents = load_encoder(measured / "model"), [*texts[0][:3], " ".join(texts[0])]  # one too long
    expected = encoder.encode(documents, (2,), "document").at(SubModel(2, 8))
    given, vespa = [PROMPTS["document"] + text for text in documents], tmp_path / "out/for/vespa/models"
    tokenizer = (vespa / "tokenizer.json").read_bytes()
    found = vectors_of((vespa / "l2.onnx").read_bytes(), tokenizer, given)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    with zipfile.ZipFile(tmp_path / "out/for/opensearch/L2_D8.zip") as archive:
        found = vectors_of(archive.read("L2_D8.onnx"), archive.read("tokenizer.json"), given)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_model_that_does_not_pool_prompts_is_refused_where_the_store_embeds(tiny_bert, tmp_path):
    encoder = load_encoder(tiny_bert, pooling="mean", prompts=PROMPTS, include_prompt=False)
    save_encoder(encoder, tmp_path / "model")
    with pytest.raises(InputError, match="this model leaves them out"):
        embedtrain.export(tmp_path / "model", tmp_path / "out", layer=1, stores=["vespa"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["for=qdrnt"], "there is no store 'qdrnt'; did you mean 'qdrant'?"),
        ([FUNNEL], "name them, e.g. for=pgvector,qdrant"),
        ([FUNNEL, "for=faiss", "dim=8"], "leave out layer and dim"),
        (["for=faiss", "funnel={cells:[[2,8],[9,32]],keep:[5]}"], "there is no sub-model L9_D32"),
    ],
)
def test_what_cannot_be_exported_is_said_in_one_line(measured, tmp_path, error_of, words, says):
    assert says in error_of("export", f"model={measured}/model", f"out={tmp_path}/out", *words)
    assert not (tmp_path / "out").exists()


def test_the_exported_folder_is_the_cut_and_replaces_itself(exported, measured, tmp_path):
    for _ in range(2):
        embedtrain.export(measured / "model", tmp_path / "out", dim=8, stores=["qdrant"], overwrite=True)
    assert (tmp_path / "out/for/qdrant/query.json").is_file()
    assert load_encoder(exported / "funnel").width == 32
    assert load_encoder(exported / "funnel/for/L2_D8").num_layers == 2
