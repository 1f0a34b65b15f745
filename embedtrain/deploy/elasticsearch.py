"""Elasticsearch 8.18 or 9: a mapping with a dense_vector a stage, and a query that ranks again."""

from __future__ import annotations

import json
from typing import Any

from embedtrain.deploy.client import client
from embedtrain.deploy.search import TOP, Files, Search, placeholder, readme
from embedtrain.types import InputError, SubModel

WIDEST = 4096  # dims of a dense_vector
BBQ = 384  # dims from which one bit a coordinate is Elasticsearch's own default
CANDIDATES = 10_000  # most that num_candidates may be

ABOUT = """`mapping.json` is the body of `PUT /documents`; `query.json`, with vectors in place of the names in
angle brackets, of `POST /documents/_search`. `embed.py` gives the vectors: a document has a field for each.

```python
from elasticsearch import Elasticsearch
from embed import documents, query

client = Elasticsearch("http://localhost:9200")
for document in documents(["a text", "another"]):
    client.index(index="documents", document=document)
print(client.search(index="documents", body=query("a question")))
```

A dense_vector has one size, so each stage has a field of its own; only the first has an index. Scores of the
last stage are cosine + 1."""
BODIES = '''

def documents(texts):
    """The documents to write."""
    found = embed(texts, "document")
    return [
        {"text": text} | {name: vectors[row].tolist() for name, vectors in found.items()}
        for row, text in enumerate(texts)
    ]


def query(question):
    """query.json with the vectors of a question in place of their names."""
    text = (Path(__file__).parent / "query.json").read_text("utf-8")
    for name, vectors in embed([question], "query").items():
        text = text.replace(f'"<{name}>"', str(vectors[0].tolist()))
    return json.loads(text)
'''


def files(search: Search) -> Files:
    """mapping.json, query.json, embed.py, README.md.

    Raises:
        InputError: for a vector or shortlist that is too large.
    """
    head = client("Documents and queries with their vectors.", search, search.cells, ["import json"])
    return {
        "mapping.json": json.dumps(_mapping(search), indent=2) + "\n",
        "query.json": json.dumps(_query(search), indent=2) + "\n",
        "embed.py": head + BODIES,
        "README.md": readme(search, "Elasticsearch", ABOUT),
    }


def _mapping(search: Search) -> dict[str, Any]:
    fields: dict[str, Any] = {"text": {"type": "text"}}
    for number, cell in enumerate(search.cells):
        if cell.dim > WIDEST:
            raise InputError(f"Elasticsearch takes at most {WIDEST} dims, {cell} has more: cut it")
        fields[str(cell)] = {"type": "dense_vector", "dims": cell.dim, "index": number == 0}
        if number == 0:
            kind = "bbq_hnsw" if _is_bbq(search) else "hnsw" if search.keep else "int8_hnsw"
            fields[str(cell)] |= {"similarity": "cosine", "index_options": {"type": kind}}
    return {"mappings": {"properties": fields}}


def _query(search: Search) -> dict[str, Any]:
    first, keep = search.cells[0], (*search.keep, TOP)
    if keep[0] > CANDIDATES:
        raise InputError(f"Elasticsearch takes at most {CANDIDATES} candidates, keep begins with {keep[0]}")
    nearest: dict[str, Any] = {
        "field": str(first), "query_vector": placeholder(first), "k": keep[0],
        "num_candidates": min(CANDIDATES, max(100, 2 * keep[0])),
    }  # fmt: skip
    if _is_bbq(search):
        nearest["rescore_vector"] = {"oversample": 3.0}
    body: dict[str, Any] = {"size": TOP, "_source": ["text"], "query": {"knn": nearest}}
    if search.keep:
        later = zip(search.cells[1:], search.keep, strict=True)
        body["rescore"] = [_rescore(cell, count) for cell, count in later]
    return body


def _rescore(cell: SubModel, count: int) -> dict[str, Any]:
    source = f"cosineSimilarity(params.query, '{cell}') + 1.0"
    script = {"source": source, "params": {"query": placeholder(cell)}}
    query = {"script_score": {"query": {"match_all": {}}, "script": script}}
    weights = {"query_weight": 0.0, "rescore_query_weight": 1.0}
    return {"window_size": count, "query": {"rescore_query": query, **weights}}


def _is_bbq(search: Search) -> bool:
    """Bits with ranking again by whole vectors, for a cut; the stages of a funnel do that themselves."""
    return not search.keep and search.cells[0].dim >= BBQ
