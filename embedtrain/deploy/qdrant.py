"""Qdrant 1.10 or later: a collection of named vectors, and a query whose prefetches are the funnel."""

from __future__ import annotations

import json
from typing import Any

from embedtrain.deploy.client import client
from embedtrain.deploy.search import TOP, Files, Search, placeholder, readme

CLIENT = '''

COLLECTION = json.loads((Path(__file__).parent / "collection.json").read_text("utf-8"))
QUERY = json.loads((Path(__file__).parent / "query.json").read_text("utf-8"))


def create(client, name="documents"):
    """Make the collection; `client` is a `qdrant_client.QdrantClient`."""
    models = {key: VectorParams(**value) for key, value in COLLECTION["vectors"].items()}
    client.create_collection(name, vectors_config=models)


def add(client, ids, texts, name="documents"):
    """Write documents."""
    found = embed(texts, "document")
    points = []
    for row, (key, text) in enumerate(zip(ids, texts, strict=True)):
        vector = {one: vectors[row].tolist() for one, vectors in found.items()}
        points.append(PointStruct(id=key, vector=vector, payload={"text": text}))
    client.upsert(name, points)


def filled(value, vectors):
    """The query with vectors in place of their names."""
    if isinstance(value, dict):
        return {key: filled(one, vectors) for key, one in value.items()}
    if isinstance(value, list):
        return [filled(one, vectors) for one in value]
    return vectors.get(value, value) if isinstance(value, str) else value


def search(client, question, k=TOP, name="documents"):
    """The best k documents: (id, cosine), best first."""
    vectors = {f"<{key}>": value[0].tolist() for key, value in embed([question], "query").items()}
    request = QueryRequest(**{**filled(QUERY, vectors), "limit": k})
    found = client.query_points(
        name,
        query=request.query,
        using=request.using,
        prefetch=request.prefetch,
        search_params=request.params,
        limit=k,
        with_payload=False,
    )
    return [(point.id, point.score) for point in found.points]
'''
OWN = "from qdrant_client.models import PointStruct, QueryRequest, VectorParams"
ABOUT = """`collection.json` is the body of `PUT /collections/documents`; `query.json`, with vectors in place
of the names in angle brackets, of `POST /collections/documents/points/query`. `client.py` does both:

```python
from qdrant_client import QdrantClient
from client import add, create, search

client = QdrantClient("http://localhost:6333")  # or ":memory:"
create(client)
add(client, [1, 2], ["a text", "another"])
print(search(client, "a question"))
```"""
CUT = """The index holds int8 in memory and ranks again by float32 from disk. For signs, put
`{"binary": {"always_ram": true}}` into `quantization_config`; measure `binary_rescore` by embedtrain-evaluate
first."""


def files(search: Search) -> Files:
    """collection.json, query.json, client.py, README.md."""
    head = client("Documents into Qdrant, and a search.", search, search.cells, ["import json"], [OWN])
    return {
        "collection.json": json.dumps(_collection(search), indent=2) + "\n",
        "query.json": json.dumps(_query(search), indent=2) + "\n",
        "client.py": head + CLIENT.replace("TOP", str(TOP)),
        "README.md": readme(search, "Qdrant", ABOUT, *([] if search.keep else [CUT])),
    }


def _collection(search: Search) -> dict[str, Any]:
    """Later stages are compared with few documents: from disk, in no graph."""
    vectors: dict[str, Any] = {
        str(cell): {"size": cell.dim, "distance": "Cosine", "on_disk": True, "hnsw_config": {"m": 0}}
        for cell in search.cells[1:]
    }
    first: dict[str, Any] = {"size": search.cells[0].dim, "distance": "Cosine"}
    if not search.keep:
        first |= {"on_disk": True, "quantization_config": {"scalar": {"type": "int8", "always_ram": True}}}
    return {"vectors": {str(search.cells[0]): first} | vectors}


def _query(search: Search) -> dict[str, Any]:
    """Each stage asks for what the one before it gave."""
    query: dict[str, Any] = {}
    for cell, limit in zip(search.cells, (*search.keep, TOP), strict=True):
        inner = {"prefetch": query} if query else {}
        query = {"query": placeholder(cell), "using": str(cell), "limit": limit, **inner}
    if not search.keep:
        query["params"] = {"quantization": {"rescore": True, "oversampling": 3.0}}
    return query
