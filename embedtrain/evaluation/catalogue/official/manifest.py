"""manifest.json of a mirror: which repositories a folder holds, and the size and hash of every file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from embedtrain.files.atomic import write_text
from embedtrain.files.reading import read_json, reading

NAME = "manifest.json"
FORMAT = 1


class File(NamedTuple):
    """One file of a repository: its path in it, bytes and hash."""

    path: str
    size: int
    sha256: str


class Repo(NamedTuple):
    """One repository as it was fetched."""

    repo: str
    kind: str  # dataset or model
    revision: str
    folder: str  # under the root
    tasks: tuple[str, ...]  # that need it; more names may be added later
    files: tuple[File, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def sha256(self) -> str:
        """One hash of all names and contents."""
        lines = "".join(f"{file.sha256}  {file.path}\n" for file in sorted(self.files))
        return hashlib.sha256(lines.encode()).hexdigest()


def read_manifest(root: Path) -> dict[str, Repo]:
    """The repositories of a mirror by folder; empty where there is no manifest.

    Raises:
        InputError: the manifest cannot be read.
    """
    file = root / NAME
    if not file.is_file():
        return {}
    cure = "Remove it and run the prefetch again"
    value = read_json(file, cure)
    with reading(file, cure):
        return {entry["folder"]: _repo(entry) for entry in value["repos"]}


def write_manifest(root: Path, repos: Iterable[Repo]) -> Path:
    """Writes manifest.json, whole or not at all."""
    entries = [
        {
            **repo._asdict(),
            "size": repo.size,
            "sha256": repo.sha256,
            "files": [f._asdict() for f in repo.files],
        }
        for repo in sorted(repos)
    ]
    file = root / NAME
    write_text(file, json.dumps({"format": FORMAT, "repos": entries}, indent=1) + "\n")
    return file


def files_of(folder: Path) -> tuple[File, ...]:
    """Every file under a folder with its hash; what the hub's client notes for itself is left out."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    inner = [(path, path.relative_to(folder).as_posix()) for path in paths]
    return tuple(
        File(name, path.stat().st_size, _sha256(path))
        for path, name in inner
        if not name.startswith(".cache/")
    )


def faults(root: Path, repo: Repo, *, verify: bool = False) -> dict[str, str]:
    """What is wrong by file: missing, of another size, or, with `verify`, of other content."""
    found = {}
    for file in repo.files:
        path = root / repo.folder / file.path
        if not path.is_file():
            found[file.path] = "is missing"
        elif path.stat().st_size != file.size:
            found[file.path] = f"has {path.stat().st_size} bytes, the manifest says {file.size}"
        elif verify and _sha256(path) != file.sha256:
            found[file.path] = "has another content than the manifest says (sha256)"
    return found


def _repo(entry: dict[str, Any]) -> Repo:
    files = tuple(File(**file) for file in entry["files"])
    for name in (entry["folder"], *(file.path for file in files)):
        parts = PurePosixPath(name).parts
        if not parts or name != "/".join(parts) or ".." in parts or name.startswith("/"):
            raise ValueError(f"{name!r} is no path inside of the folder")
    fields = {name: entry[name] for name in ("repo", "kind", "revision", "folder")}
    return Repo(**fields, tasks=tuple(entry["tasks"]), files=files)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
