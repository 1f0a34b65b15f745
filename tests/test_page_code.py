"""The Python of every page of docs/ runs on a small run; of what cannot, names and keywords exist."""

import ast
import importlib
import importlib.util
import inspect
import json
import re
import shutil
from pathlib import Path

import pytest
from small_runs import write_rows

import embedtrain
from embedtrain.types import InputError

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = {
    f"{page.relative_to(DOCS).with_suffix('')}-{number}": code
    for page in sorted(DOCS.glob("**/*.md"))
    for number, code in enumerate(BLOCK.findall(page.read_text("utf-8")))
    if page.stem != "tutorial"  # test_tutorial.py runs it
}
RUN = [  # in this order: the first makes the run that the others read
    *("python-0", "run_files-0", "statistics-0", "evaluation-0", "evaluation-1", "models-0", "models-1"),
    *("models-3", "stores-0", "python-1", "pairs-0", "rotation-0"),
]
NOT_RUN = {  # why
    "clients-0": "fastembed is not installed beside us",
    "coming_from_sentence_transformers-0": "what others write, of a model of the hub",
    "merging-0": "two runs; tests/run/merging/test_merge.py does it",
    "models-2": "a run with LoRA; tests/model/folder/test_adapter.py does it",
    "stores-1": "a database",
}


def test_each_block_runs_or_says_why_not():
    assert sorted([*RUN, *NOT_RUN]) == sorted(BLOCKS)


def imported(tree):
    """(module, name) of each import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from ((node.module, item.name) for item in node.names)
        if isinstance(node, ast.Import):
            yield from ((item.name, None) for item in node.names)


@pytest.mark.parametrize("name", NOT_RUN)
def test_names_and_keywords_of_a_block_that_does_not_run_exist(name):
    tree = ast.parse(BLOCKS[name])
    for module, part in imported(tree):
        if importlib.util.find_spec(module.partition(".")[0]) is not None and module != "client":
            assert part is None or hasattr(importlib.import_module(module), part), (module, part)
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == "embedtrain":
            taken = inspect.signature(getattr(embedtrain, call.func.attr))
            taken.bind(*call.args, **{item.arg: None for item in call.keywords})


@pytest.fixture(scope="module")
def desk(tmp_path_factory, small_data):
    """A folder with the rows and tasks that the pages name."""
    home = tmp_path_factory.mktemp("desk")
    rows = [json.loads(line) for line in (small_data / "train.jsonl").read_text("utf-8").splitlines()]
    write_rows(home / "rows.jsonl", rows)
    pages = [
        {"title": f"page {n} of help", "text": f"It says how to do thing {n}. It is short."}
        for n in range(20)
    ]
    write_rows(home / "documents.jsonl", pages)
    shutil.copytree(small_data / "retrieval", home / "my-data/retrieval")
    return home


@pytest.mark.slow
def test_the_code_of_the_pages_runs(desk, minilm_path, monkeypatch, capsys):
    monkeypatch.chdir(desk)
    given = {
        "evaluation-0": {"path": Path("runs/mine/scores.jsonl")},
        "python-1": {"MODEL": str(minilm_path), "PAIRS": [(3, 96), (6, 384)], "ROWS": "rows.jsonl"},
        "models-1": {},
    }
    for name in RUN:
        if name == "models-3":
            pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
            embedtrain.export("runs/mine", "my-onnx", onnx=True)
        if name == "stores-0":
            embedtrain.export("runs/mine", "served", layer=3, dim=96, stores=["qdrant"])
            if importlib.util.find_spec("qdrant_client") is None:
                continue
        names = {"SentenceTransformer": importlib.import_module("sentence_transformers").SentenceTransformer}
        try:
            exec(compile(BLOCKS[name], f"docs: {name}", "exec"), names | given.get(name, {}))
        except InputError as error:
            pytest.fail(f"{name}: {error}")
    assert (desk / "my-cut/model.safetensors").is_file()
    assert "Traceback" not in capsys.readouterr().err
