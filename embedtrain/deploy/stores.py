"""The stores by name. A store is a file here that gives files, and a test."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from embedtrain.deploy import elasticsearch, local, opensearch, pgvector, qdrant, vespa
from embedtrain.deploy.search import Files, Search
from embedtrain.settings.names import nearest
from embedtrain.types import InputError, SubModel


class Store(NamedTuple):
    """What writes for a store, and the sub-models that it needs as ONNX graphs."""

    files: Callable[[Search], Files]
    graphs: Callable[[Search], Collection[SubModel]] = lambda _: ()


STORES = {
    "pgvector": Store(pgvector.files),
    "qdrant": Store(qdrant.files),
    "vespa": Store(vespa.files, vespa.graphs),
    "elasticsearch": Store(elasticsearch.files),
    "opensearch": Store(opensearch.files, opensearch.graphs),
    "faiss": Store(local.faiss_files),
    "usearch": Store(local.usearch_files),
}


def check_stores(names: Sequence[str]) -> None:
    """Raises InputError for a name that is no store, with the nearest."""
    for name in names:
        if name not in STORES:
            close = nearest(name, tuple(STORES))
            raise InputError(f"there is no store '{name}'{close} There are: {', '.join(STORES)}")


def graphs_of(search: Search, names: Sequence[str]) -> list[SubModel]:
    """The sub-models that these stores need as ONNX graphs."""
    return list(dict.fromkeys(sub for name in names for sub in STORES[name].graphs(search)))


def files_of(search: Search, names: Sequence[str]) -> dict[str, str | bytes]:
    """Content by path, a folder a store.

    Raises:
        InputError: for what a store cannot hold.
    """
    every = {name: STORES[name].files(search) for name in names}
    return {f"{name}/{path}": content for name, files in every.items() for path, content in files.items()}


def write_files(folder: Path, files: Files) -> None:
    """Write the content of files under a folder."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content if isinstance(content, bytes) else content.encode())
