"""Every text of the package's source that a person may read."""

import ast
from pathlib import Path

import embedtrain

PACKAGE = Path(embedtrain.__file__).parent
ROOT = PACKAGE.parent


def texts():
    """(text with {} for what is filled in, place) of every string of the package that is no docstring."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name in ("card.py", "adapter_card.py", "usage.py"):  # code for other programs
            continue
        templates = path.parent.name == "deploy"  # whose strings of several lines are files, not messages
        tree = ast.parse(path.read_text("utf-8"))
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
        docs = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
        }
        joined = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
        inner = {id(part) for node in joined for part in node.values}
        for node in ast.walk(tree):
            if id(node) in docs | inner:
                continue
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
                yield "".join(parts), f"{path.relative_to(ROOT)}:{node.lineno}"
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                if templates and "\n" in node.value:
                    continue
                yield node.value, f"{path.relative_to(ROOT)}:{node.lineno}"
