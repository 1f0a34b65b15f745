"""Files for stores: well formed, of the search that was chosen, with the model's prompts."""

import ast
import json
import re
import sqlite3
import zipfile
from io import BytesIO
from xml.etree import ElementTree as ET

import pytest

from embedtrain.deploy.graph import Graph
from embedtrain.deploy.search import Search
from embedtrain.deploy.stores import STORES, check_stores, files_of, graphs_of
from embedtrain.types import InputError, SubModel

SEARCHES = {
    "cut": Search("cut", (SubModel(6, 384),)),
    "dims": Search("dims", (SubModel(6, 32), SubModel(6, 128), SubModel(6, 384)), (200, 50)),
    "layers": Search("layers", (SubModel(2, 64), SubModel(6, 384)), (2000,)),
}
PROMPTS = {"query": 'find "<&>": ', "document": "passage: "}


def made(name, searched, **changes):
    """The files of a store, by path in its folder."""
    search = searched._replace(**changes)
    graphs = {sub: Graph(b"onnx", b"{}", token_types=False) for sub in graphs_of(search, [name])}
    files = files_of(search._replace(graphs=graphs), [name])
    return {path.removeprefix(f"{name}/"): content for path, content in files.items()}


def balanced(sql):
    """Whether parentheses, quotes and dollar quotes of SQL close; each statement ends in a semicolon."""
    outside = re.sub(r"--[^\n]*", "", re.sub(r"\$\$.*?\$\$", "''", sql, flags=re.S))
    statements = [part.strip() for part in outside.split(";")]
    return not statements[-1] and all(part.count("(") == part.count(")") for part in statements)


@pytest.mark.parametrize("searched", SEARCHES.values(), ids=SEARCHES)
@pytest.mark.parametrize("name", STORES)
def test_every_file_is_well_formed(name, searched):
    files = made(name, searched, prompts=PROMPTS, scores={"it's": 0.5, '"\n🙂"': 1.0})
    assert files["README.md"].startswith("# ")
    assert str(searched.cells[-1]) in files["README.md"]
    for path, content in files.items():
        if path.endswith(".json"):
            json.loads(content)
        elif path.endswith(".py"):
            ast.parse(content)
        elif path.endswith(".xml"):
            ET.fromstring(content)
        elif path.endswith(".sql"):
            assert balanced(content), content
            for body in re.findall(r"\$\$(.*?)\$\$", content, flags=re.S):
                assert sqlite3.complete_statement(body + ";")
        elif path.endswith(".sd"):
            assert content.count("{") == content.count("}")
        elif path.endswith(".zip"):
            assert zipfile.ZipFile(BytesIO(content)).testzip() is None
        else:
            assert path == "README.md" or path.endswith(".onnx")


@pytest.mark.parametrize("searched", SEARCHES.values(), ids=SEARCHES)
@pytest.mark.parametrize("name", ["qdrant", "elasticsearch", "opensearch", "vespa"])
def test_a_query_names_each_stage_and_how_many_documents_it_looks_at(name, searched):
    files = made(name, searched)
    text = files["query.json"] + files.get("schemas/doc.sd", "")
    for cell in searched.cells:
        assert str(cell) in text
    for count in searched.keep:
        assert re.search(rf"\b{count}\b", text)


@pytest.mark.parametrize("name", ["pgvector", "qdrant", "elasticsearch", "faiss", "usearch"])
@pytest.mark.parametrize("default_prompt", [False, True])
def test_clients_give_a_role_without_prompt_none(name, default_prompt):
    files = made(name, SEARCHES["cut"], prompts={"query": "query: "}, default_prompt=default_prompt)
    (script,) = [content for path, content in files.items() if path.endswith(".py")]
    (said,) = re.findall(r"^NO_PROMPT = (.*?)  #", script, re.MULTILINE)
    assert json.loads(said) == (["document"] if default_prompt else [])


def test_scores_are_under_the_names_of_their_tasks_whatever_these_are():
    scores = {"it's": 0.5, '"\n🙂\\': 1.0}
    (said,) = re.findall(
        r"^MEASURED = (.*?)  #", made("faiss", SEARCHES["cut"], scores=scores)["index.py"], re.M
    )
    assert ast.literal_eval(said) == scores


def test_clients_load_code_of_the_folder_only_where_they_must():
    for needs_code in (False, True):
        script = made("faiss", SEARCHES["cut"], needs_code=needs_code)["index.py"]
        assert ("trust_remote_code=True" in script) == needs_code


def test_vespa_prepends_prompts_without_the_space_that_it_adds():
    services = ET.fromstring(made("vespa", SEARCHES["layers"], prompts=PROMPTS)["services.xml"])
    embedders = services.findall("container/component")
    assert [one.get("id") for one in embedders] == ["l2", "l6"]
    for one in embedders:
        assert one.findtext("prepend/query") == 'find "<&>":'
        assert one.findtext("prepend/document") == "passage:"
        assert one.findtext("pooling-strategy") == "none"
        assert one.find("transformer-token-type-ids") is not None
    services = ET.fromstring(made("vespa", SEARCHES["cut"])["services.xml"])
    assert services.find("container/component/prepend") is None


@pytest.mark.parametrize("prompt", ["query:", "query:  ", "query:\n", "\x00query: "])
def test_vespa_refuses_prompts_that_it_would_change(prompt):
    with pytest.raises(InputError, match="one space between prompt and text"):
        made("vespa", SEARCHES["cut"], prompts={"query": prompt})


def test_opensearch_registers_what_the_zip_holds():
    files = made("opensearch", SEARCHES["layers"], prompts=PROMPTS)
    for cell in SEARCHES["layers"].cells:
        content, said = files[f"{cell}.zip"], json.loads(files[f"register_{cell}.json"])
        assert sorted(zipfile.ZipFile(BytesIO(content)).namelist()) == [f"{cell}.onnx", "tokenizer.json"]
        config = said["model_config"]
        assert said["model_content_size_in_bytes"] == len(content)
        assert config["embedding_dimension"] == cell.dim
        assert (config["query_prefix"], config["passage_prefix"]) == (PROMPTS["query"], PROMPTS["document"])


@pytest.mark.parametrize(
    ("name", "cells", "keep", "says"),
    [
        ("pgvector", [(6, 4096)], (), "indexes at most 4000 dims"),
        ("elasticsearch", [(6, 8192)], (), "takes at most 4096 dims"),
        ("elasticsearch", [(6, 32), (6, 64)], (20_000,), "at most 10000 candidates"),
        ("vespa", [(6, 8), (6, 16), (6, 32), (6, 64)], (90, 80, 70), "ranks in 3 phases"),
    ],
)
def test_what_a_store_cannot_hold_is_said(name, cells, keep, says):
    with pytest.raises(InputError, match=says):
        made(name, Search("x", tuple(SubModel(*cell) for cell in cells), keep))


def test_an_unknown_store_has_the_nearest_name():
    with pytest.raises(InputError, match="no store 'pgvectro'; did you mean 'pgvector'"):
        check_stores(["qdrant", "pgvectro"])
