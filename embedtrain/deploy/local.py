"""faiss and usearch: a script that builds an index, searches it, and compares its nDCG@10 with ours."""

from __future__ import annotations

import json

from embedtrain.deploy.client import client
from embedtrain.deploy.search import TOP, Files, Search, readme
from embedtrain.escaping import python_string

FAISS = '''import faiss


def build(vectors):
    """An exact index. For many documents: faiss.IndexHNSWFlat(dims, 32, faiss.METRIC_INNER_PRODUCT)."""
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return index


def nearest(index, queries, k):
    """The positions of the best k documents of each query, best first, (queries, k)."""
    return index.search(queries, min(k, index.ntotal))[1]
'''
USEARCH = '''from usearch.index import Index


def build(vectors):
    """An index of inner products; with dtype="i8" it takes a quarter of the memory."""
    index = Index(ndim=vectors.shape[1], metric="ip", dtype="f32")
    index.add(np.arange(len(vectors)), vectors)
    return index


def nearest(index, queries, k, exact=True):
    """The positions of the best k documents of each query, (queries, k). exact=False walks the graph."""
    found = index.search(queries, min(k, len(index)), exact=exact)
    return np.asarray(found.keys, dtype=np.int64).reshape(len(queries), -1)
'''
SEARCH = '''

STAGES = {stages}  # each but the first ranks what the one before it gave
KEEP = {keep}  # documents that each of those looks at
MEASURED = {measured}  # nDCG@10 by embedtrain-evaluate, by data set


def search(index, documents, queries, k={top}):
    """The best k documents of each query: positions and cosines, best first, (queries, k).

    `index` is of documents[STAGES[0]]; documents and queries are what `embed` gives.
    """
    found = nearest(index, queries[STAGES[0]], KEEP[0] if KEEP else k)
    for stage, keep in zip(STAGES[1:] or STAGES, KEEP or [k]):
        found = found[:, :keep]
        cosines = np.einsum("qd,qkd->qk", queries[stage], documents[stage][found])
        order = np.argsort(-cosines, axis=1, kind="stable")
        found, cosines = np.take_along_axis(found, order, 1), np.take_along_axis(cosines, order, 1)
    return found[:, :k], cosines[:, :k]


def rows(path):
    """The objects of a JSON lines file, with ids as text."""
    found = [json.loads(line) for line in path.open(encoding="utf-8") if line.strip()]
    return [row | {{key: str(row[key]) for key in row if key.endswith("id")}} for row in found]


def ndcg(ranked, relevant):
    """nDCG@10 of document ids, best first, given relevance by id."""
    best = sorted(relevant.values(), reverse=True)
    gain, ideal = (
        sum(max(0, one) / np.log2(place + 2) for place, one in enumerate(some[:10]))
        for some in ([relevant.get(one, 0) for one in ranked], best)
    )
    return gain / ideal if ideal else 0.0


def main(folder):
    """Index a folder with corpus.jsonl, queries.jsonl and qrels.jsonl, and print nDCG@10."""
    rows_of = {{name: rows(folder / f"{{name}}.jsonl") for name in ("corpus", "queries", "qrels")}}
    corpus = {{row["id"]: f"{{row.get('title') or ''}} {{row['text']}}".strip() for row in rows_of["corpus"]}}
    relevant = {{}}
    for row in rows_of["qrels"]:
        relevant.setdefault(row["query_id"], {{}})[row["corpus_id"]] = int(row.get("score", 1))
    asked = {{row["id"]: row["text"] for row in rows_of["queries"] if row["id"] in relevant}}
    documents, queries = embed(corpus.values(), "document"), embed(asked.values(), "query")
    found, _ = search(build(documents[STAGES[0]]), documents, queries)
    ids = list(corpus)
    value = float(np.mean([ndcg([ids[one] for one in row], relevant[key]) for key, row in zip(asked, found)]))
    print(f"nDCG@10 {{value:.5f}} of {{len(asked)}} queries, {{len(ids)}} documents")
    measured = MEASURED.get(folder.name)
    if measured is not None and abs(value - measured) > 1e-3:
        sys.exit(f"embedtrain measured {{measured:.5f}}: other data, or another model")
    print("not measured by embedtrain" if measured is None else f"embedtrain measured {{measured:.5f}}")
    return value


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
'''
ABOUT = """```bash
pip install {package} sentence-transformers
python index.py my-data/retrieval/NAME
```

builds an index of a folder with corpus.jsonl, queries.jsonl and qrels.jsonl, searches it, and compares
nDCG@10 with what embedtrain-evaluate measured, if it did. `build`, `embed` and `search` are for your
own programs."""


def faiss_files(search: Search) -> Files:
    """index.py and README.md for faiss."""
    return _files(search, "faiss", "faiss-cpu", FAISS)


def usearch_files(search: Search) -> Files:
    """index.py and README.md for usearch."""
    return _files(search, "usearch", "usearch", USEARCH)


def _files(search: Search, name: str, package: str, library: str) -> Files:
    imported, _, functions = library.partition("\n\n\n")
    title = f"An index of {name}: build, search, and compare with what embedtrain measured."
    head = client(title, search, search.cells, ["import json", "import sys"], [imported])
    names = [str(cell) for cell in search.cells]
    measured = ", ".join(f"{python_string(task)}: {value}" for task, value in search.scores.items())
    rest = SEARCH.format(
        stages=json.dumps(names), keep=list(search.keep), measured=f"{{{measured}}}", top=TOP
    )
    return {
        "index.py": f"{head}\n\n{functions}{rest}",
        "README.md": readme(search, name, ABOUT.format(package=package)),
    }
