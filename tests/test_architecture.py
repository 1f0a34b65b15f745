"""The dependency rule and the boundaries of ARCHITECTURE.md, read from the source itself."""

import ast
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

import embedtrain

PACKAGE = Path(embedtrain.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
BELOW_CLI = [path for path in MODULES if path.relative_to(PACKAGE).parts[0] != "cli"]

# What each part may import besides itself. The bottom row knows only types.
VALUES = {"types", "content_ids", "transfers", "ahead"}
BOTTOM = (
    VALUES
    | {"escaping", "files", "settings", "console", "ranks", "devices", "whole_step", "vectors"}
    | {"rules"}
)
PARTS = {"data", "model", "objective"}
MAY_IMPORT = {
    "__init__": {"types", "api"},
    "types": {"transfers"},
    "content_ids": {"types"},
    "transfers": set(),
    "ahead": set(),
    "console": {"escaping"},
    "escaping": set(),
    "ranks": set(),
    "devices": {"types", "ranks"},
    "whole_step": set(),
    "files": {"types", "escaping"},
    "settings": {"types", "files"},
    "vectors": {"types", "files", "devices", "transfers"},
    "rules": {"types", "objective"},
    "data": VALUES | {"files", "settings", "console"},
    "model": VALUES | {"escaping", "files", "devices", "vectors"},
    "objective": VALUES | {"files", "rules", "devices"},
    "training": {
        "types",
        "content_ids",
        "transfers",
        "escaping",
        "files",
        "settings",
        "console",
        "ranks",
        "whole_step",
    }
    | PARTS,
    "evaluation": VALUES | {"escaping", "files", "ranks", "vectors"} | PARTS,
    "merging": {"types", "content_ids"},
    "making": VALUES | {"files", "settings", "devices", "vectors", "data", "model"},
    "mining": {
        "types",
        "content_ids",
        "transfers",
        "ahead",
        "files",
        "console",
        "ranks",
        "devices",
        "whole_step",
        "rules",
        "vectors",
    }
    | PARTS,
    "reporting": {"types", "escaping", "files"},
    "deploy": {"types", "escaping", "settings", "model"},
    "run": BOTTOM | PARTS | {"training", "evaluation", "making", "merging", "mining", "reporting", "deploy"},
    "doctor": BOTTOM | PARTS | {"training", "evaluation", "mining", "run"},
    "api": BOTTOM | PARTS | {"run"},
    "cli": BOTTOM | PARTS | {"training", "evaluation", "mining", "reporting", "run", "doctor"},
}
# Entry points below cli/ that a person starts with `python -m`, and so may print.
PRINTS = {"data/dictionary.py"}
MAX_LINES, MAX_BODY, MAX_FILES = 300, 60, 15


def name_of(path):
    return path.relative_to(PACKAGE).as_posix()


def part_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def tree_of(path):
    return ast.parse(path.read_text("utf-8"))


def imported(tree):
    """Dotted names of all imports, wherever they stand in the file: (name, line)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def used(tree):
    """Dotted names that are read, e.g. os.environ of `os.environ["A"]`: (name, line)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            yield ast.unparse(node), node.lineno


def forbidden_imports(part, tree):
    """Imports of a module of `part` that the dependency rule does not allow."""
    for name, line in imported(tree):
        pieces = name.split(".")
        if pieces[0] == "embedtrain" and len(pieces) > 1 and pieces[1] not in MAY_IMPORT[part] | {part}:
            yield f"line {line} imports {name}"


def test_every_module_belongs_to_a_known_part():
    assert {part_of(path) for path in MODULES} <= set(MAY_IMPORT)


def violations(rule, modules=MODULES):
    """Module -> what `rule` found in its tree, for the modules where it found something."""
    return {name_of(path): found for path in modules if (found := list(rule(tree_of(path))))}


def test_dependencies_point_one_way():
    for part in MAY_IMPORT:
        modules = [path for path in MODULES if part_of(path) == part]
        assert violations(lambda tree: forbidden_imports(part, tree), modules) == {}  # noqa: B023


@pytest.mark.parametrize(
    ("part", "line"),
    [
        ("data", "from embedtrain.model.encoder import Encoder"),
        ("model", "import embedtrain.objective.similarity.pairing"),
        ("evaluation", "from embedtrain.training import module"),
        ("reporting", "from embedtrain.model.encoder import Encoder"),
        ("types", "from embedtrain.files.rows import read_rows"),
        ("training", "def late():\n    from embedtrain.cli import train"),
        ("objective", "from embedtrain import data"),
    ],
)
def test_a_forbidden_import_would_be_seen(part, line):
    assert len(list(forbidden_imports(part, ast.parse(line)))) == 1


def edges_inside(part):
    """Which packages of a part import which; a module that lies beside them counts by itself."""
    for path in (PACKAGE / part).rglob("*.py"):
        mine, found = path.relative_to(PACKAGE / part).parts, imported(tree_of(path))
        for pieces in (name.split(".") for name, _ in found):
            if pieces[:2] == ["embedtrain", part] and len(pieces) > 2:
                yield mine[0].removesuffix(".py"), pieces[2]


@pytest.mark.parametrize("part", ["data", "evaluation", "model", "objective", "training"])
def test_packages_of_a_part_depend_one_way(part):
    edges = {(one, other) for one, other in edges_inside(part) if one != other}
    assert edges, "nothing was looked at"
    left = {end for edge in edges for end in edge}
    while left:
        lowest = {name for name in left if not any(one == name and other in left for one, other in edges)}
        assert lowest, f"these packages import each other in a circle: {sorted(left)}"
        left -= lowest


def test_no_two_modules_import_each_other():
    names = {path: ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in MODULES}
    uses = {
        (mine, other)
        for path, mine in names.items()
        for found, _ in imported(tree_of(path))
        for other in (found, found.rpartition(".")[0])
        if other in names.values() and other != mine
    }
    assert {(one, other) for one, other in uses if one < other and (other, one) in uses} == set()


def test_imports_are_absolute():
    """A relative import hides which part it crosses into."""
    assert violations(lambda tree: (n.lineno for n in ast.walk(tree) if getattr(n, "level", 0))) == {}


REMOVERS = {"unlink", "rmdir", "rmtree", "remove", "rename", "replace", "renames", "move", "removedirs"}
SHELL = {"os", "shutil"}


def removals(tree):
    """Calls that remove or rename a file or folder: of os and shutil, and of paths."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if not isinstance(call.func, ast.Attribute) or call.func.attr not in REMOVERS:
            continue
        name, given = call.func.attr, len(call.args) + len(call.keywords)
        if ast.unparse(call.func.value) in SHELL:
            yield call.lineno
        elif name in ("unlink", "rmdir") or (name in ("rename", "replace") and len(call.args) == given == 1):
            yield call.lineno  # text.replace takes two


def test_files_are_removed_and_renamed_in_one_place():
    """`owned` knows what is ours; `atomic` gives what it has just written its name."""
    assert violations(removals).keys() == {"files/owned.py", "files/atomic.py"}


@pytest.mark.parametrize(
    "line",
    [
        "shutil.rmtree(x)",
        "os.replace(a, b)",
        "path.unlink(missing_ok=True)",
        "a.rename(b)",
        "(a / b).replace(c)",
    ],
)
def test_a_removal_would_be_seen(line):
    assert list(removals(ast.parse(line))) == [1]
    assert (
        list(removals(ast.parse('text.replace("a", "b"); replace(settings, a=1); owned.rename(a, b)'))) == []
    )


def modules_that_import(*packages):
    return {
        name_of(path)
        for path in MODULES
        for name, _ in imported(tree_of(path))
        if any(f"{name}.".startswith(f"{package}.") for package in packages)
    }


def test_hydra_stops_in_the_commands_and_the_config():
    users = modules_that_import("hydra", "omegaconf")
    assert {name for name in users if not name.startswith("cli/")} == {
        "settings/compose.py",
        "settings/environment.py",
    }


def test_ranks_talk_in_three_modules_only():
    users = modules_that_import("torch.distributed") | {
        name_of(path)
        for path in MODULES
        for name, _ in used(tree_of(path))
        if name.startswith("torch.distributed")
    }
    assert users == {"training/distributed.py", "training/sharding.py", "ranks.py"}


def outside_reads(tree):
    """Reads of the environment and of the working folder."""
    names = {name for name, _ in imported(tree)} | {name for name, _ in used(tree)}
    return {name for name in names if name.startswith(("os.environ", "os.getenv", "os.getcwd", "Path.cwd"))}


def prints(tree):
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return (call.lineno for call in calls if ast.unparse(call.func) == "print")


def test_nothing_below_the_commands_reads_the_environment_or_the_working_folder():
    assert violations(outside_reads, BELOW_CLI) == {}


def test_nothing_below_the_commands_prints():
    assert violations(prints, BELOW_CLI).keys() <= PRINTS


def test_modules_are_short_enough_to_read_in_one_sitting():
    lines = {name_of(path): len(path.read_text("utf-8").splitlines()) for path in MODULES}
    assert {name: count for name, count in lines.items() if count > MAX_LINES} == {}


def test_folders_are_small_enough_to_know_every_file():
    files = Counter(path.parent for path in MODULES if path.name != "__init__.py")
    assert {str(folder): count for folder, count in files.items() if count > MAX_FILES} == {}


def long_functions(tree):
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return (function.name for function in functions if _body_lines(function) > MAX_BODY)


def test_functions_fit_on_a_screen():
    assert violations(long_functions) == {}


def _body_lines(function):
    """Lines of a function without its signature and docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0
