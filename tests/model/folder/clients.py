"""Programs that read an exported folder or keep its vectors: what to install, and a few lines for each.

`python clients.py NAME JOBS.json` runs in an environment of its own, without embedtrain. A job of programs
that embed has a `folder`, its `dim`, and `texts` with their `role` and `prompt`; one of stores has
`documents`, `queries` (unit vectors) and `k`. The last line printed is a JSON list, an entry a job: vectors,
or for each query [position, cosine], best first.
"""

import json
import sys
import tempfile
from typing import NamedTuple

try:
    from litserve import LitAPI
except ImportError:
    LitAPI = object

TORCH = ("torch==2.13.0", "sentence-transformers==6.2.0", "transformers==5.23.0")
QUERY = "query"


def sentence_transformers(job):
    model = _model(job)
    encode = model.encode_query if job["role"] == QUERY else model.encode_document
    return encode(job["texts"])


def langchain(job):
    from langchain_huggingface import HuggingFaceEmbeddings

    which = "query_encode_kwargs" if job["role"] == QUERY else "encode_kwargs"
    model = HuggingFaceEmbeddings(model_name=job["folder"], **{which: {"prompt": job["prompt"]}})
    if job["role"] == QUERY:
        return [model.embed_query(text) for text in job["texts"]]
    return model.embed_documents(job["texts"])


def llama_index(job):
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    which = "query_instruction" if job["role"] == QUERY else "text_instruction"
    model = HuggingFaceEmbedding(job["folder"], **{which: job["prompt"]})
    if job["role"] == QUERY:
        return [model.get_query_embedding(text) for text in job["texts"]]
    return model.get_text_embedding_batch(job["texts"])


def keybert(job):
    from keybert import KeyBERT

    # KeyBERT calls plain encode, which gives no prompt: so it is put before the texts.
    return KeyBERT(model=_model(job)).model.embed([job["prompt"] + text for text in job["texts"]])


def setfit(job):
    from setfit import SetFitModel

    return SetFitModel.from_pretrained(job["folder"]).model_body.encode(job["texts"], prompt=job["prompt"])


def infinity(job):
    import asyncio

    from infinity_emb import AsyncEmbeddingEngine, EngineArgs

    async def embed():
        engine = AsyncEmbeddingEngine.from_args(
            EngineArgs(model_name_or_path=job["folder"], device="cpu", engine="torch", compile=False)
        )
        async with engine:
            found, _ = await engine.embed([job["prompt"] + text for text in job["texts"]])
        return found

    return asyncio.run(embed())


def litserve(job):
    import multiprocessing
    import socket
    import time
    import urllib.error
    import urllib.request

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(job, port))
    server.start()
    body = json.dumps(job["texts"]).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/predict", body, {"Content-Type": "application/json"}
    )
    try:
        while server.is_alive():
            try:
                return json.load(urllib.request.urlopen(request))
            except urllib.error.URLError:
                time.sleep(1)
        sys.exit("the server ended")
    finally:
        server.terminate()


class Served(LitAPI):
    def __init__(self, job):
        super().__init__()
        self.job = job

    def setup(self, device):
        self.model = _model(self.job)

    def predict(self, texts):
        name = self.job["role"] if self.job["prompt"] else None
        return self.model.encode(texts, prompt_name=name).tolist()


def _serve(job, port):
    from litserve import LitServer

    LitServer(Served(job), accelerator="cpu").run(
        host="127.0.0.1", port=port, generate_client_file=False, log_level="error"
    )


def chroma(job):
    from chromadb.utils.embedding_functions import SentenceTransformerEmbeddingFunction

    if job["role"] == QUERY:  # it knows one prompt, and keeps its models by name
        return sentence_transformers(job)
    settings = {"default_prompt_name": job["role"]} if job["prompt"] else {}
    return SentenceTransformerEmbeddingFunction(job["folder"], **settings)(job["texts"])


def onnxruntime(job):
    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer

    session = onnxruntime.InferenceSession(f"{job['folder']}/onnx/model.onnx")
    read = Tokenizer.from_file(f"{job['folder']}/tokenizer.json").encode_batch(
        [job["prompt"] + text for text in job["texts"]]
    )
    fields = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    names = [item.name for item in session.get_inputs()]
    inputs = {name: np.array([getattr(item, fields[name]) for item in read]) for name in names}
    return session.run(["sentence_embedding"], inputs)[0]


def fastembed(job):
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    name = f"my/{id(job)}"
    TextEmbedding.add_custom_model(
        model=name,
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf=name),
        dim=job["dim"],
        model_file="onnx/model.onnx",
    )
    model = TextEmbedding(name, specific_model_path=job["folder"])
    return model.embed([job["prompt"] + text for text in job["texts"]])


def faiss(job):
    import faiss

    index = faiss.IndexFlatIP(len(job["documents"][0]))
    index.add(_array(job["documents"]))
    cosines, places = index.search(_array(job["queries"]), job["k"])
    return _ranked(places, cosines)


def usearch(job):
    from usearch.index import Index

    index = Index(ndim=len(job["documents"][0]), metric="ip", dtype="f32")
    index.add(range(len(job["documents"])), _array(job["documents"]))
    found = index.search(_array(job["queries"]), job["k"], exact=True)
    return _ranked(found.keys, 1 - found.distances)


def hnswlib(job):
    import hnswlib

    index = hnswlib.Index(space="cosine", dim=len(job["documents"][0]))
    index.init_index(max_elements=len(job["documents"]), ef_construction=200, M=16)
    index.add_items(_array(job["documents"]))
    index.set_ef(200)
    places, distances = index.knn_query(_array(job["queries"]), job["k"])
    return _ranked(places, 1 - distances)


def lancedb(job):
    import lancedb

    with tempfile.TemporaryDirectory() as place:
        rows = [{"id": key, "vector": vector} for key, vector in enumerate(job["documents"])]
        table = lancedb.connect(place).create_table("documents", rows)
        found = [
            table.search(query).distance_type("cosine").limit(job["k"]).to_list() for query in job["queries"]
        ]
    return [[[row["id"], 1 - row["_distance"]] for row in rows] for rows in found]


def qdrant(job):
    from qdrant_client import QdrantClient
    from qdrant_client.models import Distance, PointStruct, VectorParams

    store = QdrantClient(":memory:")
    store.create_collection(
        "documents", VectorParams(size=len(job["documents"][0]), distance=Distance.COSINE)
    )
    store.upsert("documents", [PointStruct(id=i, vector=one) for i, one in enumerate(job["documents"])])
    found = [store.query_points("documents", query=one, limit=job["k"]).points for one in job["queries"]]
    return [[[point.id, point.score] for point in points] for points in found]


def sqlite_vec(job):
    import pysqlite3 as sqlite3  # many a Python's own sqlite3 loads no extensions
    import sqlite_vec

    store = sqlite3.connect(":memory:")
    store.enable_load_extension(True)
    sqlite_vec.load(store)
    vector = f"vector float[{len(job['documents'][0])}] distance_metric=cosine"
    store.execute(f"CREATE VIRTUAL TABLE documents USING vec0({vector})")
    rows = [(key, json.dumps(vector)) for key, vector in enumerate(job["documents"])]
    store.executemany("INSERT INTO documents(rowid, vector) VALUES (?, ?)", rows)
    asked = "SELECT rowid, 1 - distance FROM documents WHERE vector MATCH ? AND k = ? ORDER BY distance"
    return [store.execute(asked, (json.dumps(one), job["k"])).fetchall() for one in job["queries"]]


def _model(job):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(job["folder"], device="cpu")


def _array(rows):
    import numpy as np

    return np.array(rows, dtype=np.float32)


def _ranked(places, cosines):
    return [
        [[int(place), float(cosine)] for place, cosine in zip(*row, strict=True)]
        for row in zip(places, cosines, strict=True)
    ]


class Client(NamedTuple):
    """What makes an environment of a client: packages beside those that are shared, and by whom they are."""

    packages: tuple[str, ...]
    torch: bool = True  # whether it takes TORCH from the environment that all share
    row: str = ""  # its name in docs/clients.md; that of its first package when none


# By the name of its function. transformers.js is in clients.mjs.
EMBED = {
    "sentence_transformers": Client((), row="sentence-transformers"),
    "langchain": Client(("langchain-huggingface==1.2.3",)),
    "llama_index": Client(("llama-index-embeddings-huggingface==0.8.0",)),
    "chroma": Client(("chromadb==1.5.9",)),
    "keybert": Client(("keybert==0.9.0",)),
    "setfit": Client(("setfit==1.2.0",)),
    "litserve": Client(("litserve==0.2.19",)),
    "infinity": Client(("infinity-emb[torch]==0.0.78",), torch=False, row="infinity-emb"),
    "onnxruntime": Client(("onnxruntime==1.32.0", "tokenizers==0.23.3"), torch=False),
    "fastembed": Client(("fastembed==0.9.1",), torch=False),
}
SEARCH = {
    "faiss": Client(("faiss-cpu==1.15.1", "numpy"), torch=False),
    "usearch": Client(("usearch==2.26.6", "numpy"), torch=False),
    "hnswlib": Client(("hnswlib==0.8.0", "numpy"), torch=False),
    "lancedb": Client(("lancedb==0.40.0",), torch=False),
    "qdrant": Client(("qdrant-client==1.20.0",), torch=False),
    "sqlite_vec": Client(("sqlite-vec==0.1.9", "pysqlite3-binary==0.5.4.post2"), torch=False),
}
NODE = "@huggingface/transformers@4.3.2"


def main(name, jobs):
    with open(jobs, encoding="utf-8") as file:
        found = [_plain(list(globals()[name](job))) for job in json.load(file)]
    print("\n" + json.dumps(found))  # noqa: T201


def _plain(value):
    return float(value) if not getattr(value, "__len__", None) else [_plain(one) for one in value]


if __name__ == "__main__":
    main(*sys.argv[1:])
