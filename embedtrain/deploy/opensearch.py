"""OpenSearch 2.19 or 3: a zip of each sub-model for ML Commons, a pipeline that embeds, an index, a query."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from typing import Any

from embedtrain.deploy.search import TOP, Files, Search, placeholder, readme
from embedtrain.types import SubModel

ABOUT = """OpenSearch embeds texts itself. For each sub-model put NAME.zip where the cluster can fetch it, and
its address into `url` of `register_NAME.json`. Then

1. `POST /_plugins/_ml/models/_register?deploy=true` with `register_NAME.json`; its task has the model id;
2. put the ids in place of `<model NAME>` in `pipeline.json` and `query.json`;
3. `PUT /_ingest/pipeline/documents` with `pipeline.json`, `PUT /documents` with `index.json`;
4. index documents with the field `text`; `POST /documents/_search` with `query.json`.

The cluster needs `plugins.ml_commons.allow_registering_model_via_url: true`. Pooling and truncation are in
the graph: its output is one row, which `pooling_mode: CLS` takes. Prompts are `query_prefix` and
`passage_prefix`, which OpenSearch puts before texts from version 3.5 on."""
FUNNEL = """Later stages of the query are ranked again by the vectors of the question: put what
`POST /_plugins/_ml/models/MODEL_ID/_predict` gives for it in place of {places}."""


def graphs(search: Search) -> tuple[SubModel, ...]:
    """A graph a stage: OpenSearch takes vectors as they come."""
    return search.cells


def files(search: Search) -> Files:
    """NAME.zip and register_NAME.json of each stage, pipeline.json, index.json, query.json, README.md."""
    made: dict[str, str | bytes] = {}
    for cell in dict.fromkeys(search.cells):
        content = _zip(search, cell)
        made[f"{cell}.zip"] = content
        made[f"register_{cell}.json"] = _json(_register(search, cell, content))
    places = " and ".join(f"`{placeholder(cell)}`" for cell in search.cells[1:])
    more = [FUNNEL.format(places=places)] if search.keep else []
    return {
        **made,
        "pipeline.json": _json({"description": search.stages, "processors": _processors(search)}),
        "index.json": _json(_index(search)),
        "query.json": _json(_query(search)),
        "README.md": readme(search, "OpenSearch", ABOUT, *more),
    }


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _zip(search: Search, cell: SubModel) -> bytes:
    """The same bytes for the same model."""
    graph, buffer = search.graphs[cell], io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo(f"{cell}.onnx"), graph.model)
        archive.writestr(zipfile.ZipInfo("tokenizer.json"), graph.tokenizer)
    return buffer.getvalue()


def _register(search: Search, cell: SubModel, content: bytes) -> dict[str, Any]:
    """The body of `_register`; the type `bert` says no more than that the graph reads token_type_ids."""
    config = {
        "model_type": "bert" if search.graphs[cell].token_types else "distilbert",
        "embedding_dimension": cell.dim,
        "framework_type": "sentence_transformers",
        "pooling_mode": "CLS",
        "normalize_result": True,
        "model_max_length": search.max_length,
    }
    for key, role in (("query_prefix", "query"), ("passage_prefix", "document")):
        if search.prompt(role):
            config[key] = search.prompt(role)
    return {
        "name": f"{search.name}_{cell}",
        "version": "1.0.0",
        "function_name": "TEXT_EMBEDDING",
        "model_format": "ONNX",
        "model_content_size_in_bytes": len(content),
        "model_content_hash_value": hashlib.sha256(content).hexdigest(),
        "model_config": config,
        "url": f"<address of {cell}.zip>",
    }


def _processors(search: Search) -> list[dict[str, Any]]:
    return [
        {"text_embedding": {"model_id": f"<model {cell}>", "field_map": {"text": str(cell)}}}
        for cell in search.cells
    ]


def _index(search: Search) -> dict[str, Any]:
    method = {"name": "hnsw", "engine": "lucene", "space_type": "cosinesimil"}
    fields: dict[str, Any] = {"text": {"type": "text"}}
    for cell in search.cells:
        fields[str(cell)] = {"type": "knn_vector", "dimension": cell.dim, "method": method}
    settings = {"index": {"knn": True}, "default_pipeline": "documents"}
    return {"settings": settings, "mappings": {"properties": fields}}


def _query(search: Search) -> dict[str, Any]:
    first, keep = search.cells[0], (*search.keep, TOP)
    nearest = {"query_text": "<question>", "model_id": f"<model {first}>", "k": keep[0]}
    body: dict[str, Any] = {"size": TOP, "_source": ["text"], "query": {"neural": {str(first): nearest}}}
    if search.keep:
        later = zip(search.cells[1:], search.keep, strict=True)
        body["rescore"] = [_rescore(cell, count) for cell, count in later]
    return body


def _rescore(cell: SubModel, count: int) -> dict[str, Any]:
    params = {"field": str(cell), "query_value": placeholder(cell), "space_type": "cosinesimil"}
    script = {"source": "knn_score", "lang": "knn", "params": params}
    query = {"script_score": {"query": {"match_all": {}}, "script": script}}
    weights = {"query_weight": 0.0, "rescore_query_weight": 1.0}
    return {"window_size": count, "query": {"rescore_query": query, **weights}}
