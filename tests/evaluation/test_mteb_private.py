"""Every private name of mteb that we use is in one module, and the installed mteb has it."""

import ast
import importlib
from pathlib import Path

import mteb.abstasks
import pytest
from mteb import TaskMetadata

import embedtrain
from embedtrain.evaluation import mteb_private
from embedtrain.evaluation.catalogue.official.plain_labels import PlainLabels

PACKAGE = Path(embedtrain.__file__).parent
HERE = Path(mteb_private.__file__)


def imports_of_mteb(path):
    """(module, name) of each `from mteb... import name`."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mteb":
            yield from ((node.module, alias.name) for alias in node.names)


@pytest.mark.parametrize(("module", "name"), sorted(set(imports_of_mteb(HERE))))
def test_mteb_has_the_names_that_are_imported(module, name):
    found = importlib.import_module(module)
    assert hasattr(found, name) or importlib.import_module(f"{module}.{name}")


@pytest.mark.parametrize("owner", mteb_private.METHODS)
def test_mteb_has_the_methods_that_are_covered_or_overridden(owner):
    for name in mteb_private.METHODS[owner]:
        assert callable(getattr(getattr(mteb.abstasks, owner), name))


def test_mteb_has_the_other_names():
    assert callable(TaskMetadata._hf_task_type)
    assert {name for name in vars(PlainLabels) if not name.startswith("__")} == set(mteb_private.CLASSIFY)
    assert any(hasattr(item, "cache_clear") for item in vars(mteb.benchmarks._create_table).values())
    assert len(mteb_private.task_names()) > 1000
    assert "MTEB(eng, v2)" in mteb_private.benchmark_names()
    assert all(map(mteb_private.is_mock, mteb_private.mock_tasks()))


def test_no_other_module_imports_a_private_name_of_mteb():
    others = {
        f"{path.relative_to(PACKAGE)}: {module}.{name}"
        for path in PACKAGE.rglob("*.py")
        if path != HERE
        for module, name in imports_of_mteb(path)
        if any(part.startswith("_") for part in (*module.split("."), name))
    }
    assert others == set()


def test_no_other_module_reads_a_private_method_of_mteb():
    private = {name for names in mteb_private.METHODS.values() for name in names} | {"_hf_task_type"}
    others = [
        f"{path.relative_to(PACKAGE)}:{node.lineno} {node.attr}"
        for path in PACKAGE.rglob("*.py")
        if path != HERE and path.name != "plain_labels.py"  # which overrides CLASSIFY
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in private
    ]
    assert others == []
