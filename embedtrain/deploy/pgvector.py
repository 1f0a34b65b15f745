"""PostgreSQL with pgvector 0.7 or later: a table, expression indexes, and the search as SQL functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from embedtrain.deploy.client import client
from embedtrain.deploy.search import TOP, Files, Search, readme
from embedtrain.types import InputError, SubModel

SHORTLIST = 100  # documents that the index of a cut gives for ranking by whole vectors
SIGNS = 200  # likewise, of the index of signs
VECTOR, HALF = 2000, 4000  # most dims that an index of vector and of halfvec takes
EF_LIMIT = 1000  # most that hnsw.ef_search may be

Form = Callable[[Search, SubModel, str], str]  # the SQL of a cell's vector in a column or argument


class Stage(NamedTuple):
    """What is compared, in which form, by which operator."""

    cell: SubModel
    form: Form
    operator: str = "<=>"


CLIENT = '''

def literal(vector):
    """A vector as pgvector reads it."""
    return "[" + ",".join(map(str, vector.tolist())) + "]"


def add(connection, ids, texts):
    """Write documents; `connection` is one of psycopg 3."""
    found = embed(texts, "document")
    rows = zip(ids, texts, {document}, strict=True)
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO documents (id, text, {columns}) VALUES (%s, %s, {marks})", list(rows))


def search(connection, question, k={top}, function="search_documents"):
    """The best k documents: (id, cosine), best first. `search_documents_signs` begins with signs."""
    found = embed([question], "query")
    vectors = [{query}]
    return connection.execute(f"SELECT * FROM {{function}}({marks}, %s)", [*vectors, k]).fetchall()
'''
ABOUT = """`psql -f schema.sql` makes the table `documents`, its index and a function of the vectors of a
query ({order}):

```sql
SELECT * FROM search_documents({literals}, {top});
```

`psql -f signs.sql` adds an index of signs and `search_documents_signs`, which ranks the best {signs} by signs
again by whole vectors. `client.py` has `add(connection, ids, texts)` and `search(connection, question)` for
psycopg 3.

Load many rows before the indexes are made. `SET enable_indexscan = off` gives the exact result: compare with
it to know what the index misses."""


def files(search: Search) -> Files:
    """schema.sql, signs.sql, client.py, README.md.

    Raises:
        InputError: for a first stage that is too wide for an index.
    """
    names = [str(cell) for cell in search.whole]
    rest = CLIENT.format(
        document=", ".join(f'map(literal, found["{name}"])' for name in names),
        query=", ".join(f'literal(found["{name}"][0])' for name in names),
        columns=", ".join(f"l{layer}" for layer in search.widths),
        marks=", ".join(f"%s::vector({dim})" for dim in search.widths.values()),
        top=TOP,
    )
    head = client("Documents into PostgreSQL, and a search.", search, search.whole)
    about = ABOUT.format(
        order=", ".join(names), literals=", ".join("'[...]'" for _ in names), top=TOP, signs=SIGNS
    )
    return {
        "schema.sql": _schema(search),
        "signs.sql": _signs(search),
        "client.py": head + rest,
        "README.md": readme(search, "PostgreSQL with pgvector", about),
    }


def _schema(search: Search) -> str:
    columns = "".join(f",\n    l{layer} vector({dim}) NOT NULL" for layer, dim in search.widths.items())
    first, *later = search.cells if search.keep else (*search.cells, *search.cells)
    stages = [Stage(first, _first_form(search, first)), *(Stage(cell, _vector) for cell in later)]
    operators = "halfvec_cosine_ops" if stages[0].form is _half else "vector_cosine_ops"
    return (
        f"-- Search: {search.stages}. Needs pgvector 0.7 or later.\n"
        "CREATE EXTENSION IF NOT EXISTS vector;\n\n"
        f"CREATE TABLE documents (\n    id bigint PRIMARY KEY,\n    text text NOT NULL{columns}\n);\n\n"
        + _index(search, stages[0], operators)
        + _function(search, "search_documents", stages, search.keep or (SHORTLIST,))
    )


def _signs(search: Search) -> str:
    last = search.cells[-1]
    stages = [Stage(last, _sign, "<~>"), Stage(last, _vector)]
    return (
        "-- After schema.sql: a shortlist by signs, ranked again by whole vectors.\n"
        + _index(search, stages[0], "bit_hamming_ops")
        + _function(search, "search_documents_signs", stages, (SIGNS,))
    )


def _first_form(search: Search, first: SubModel) -> Form:
    """Half precision for the index of a cut, whose shortlist is ranked again, and where it alone fits."""
    if first.dim > HALF:
        raise InputError(
            f"pgvector indexes at most {HALF} dims and {first} has more: begin with a narrower cell, e.g. "
            f"'funnel={{cells:[[{first.layer},{HALF // 4}],[{first.layer},{first.dim}]],keep:[{SIGNS}]}}'"
        )
    return _vector if search.keep and first.dim <= VECTOR else _half


def _vector(search: Search, cell: SubModel, source: str) -> str:
    whole = search.widths[cell.layer] == cell.dim
    return source if whole else f"subvector({source}, 1, {cell.dim})::vector({cell.dim})"


def _half(search: Search, cell: SubModel, source: str) -> str:
    whole = search.widths[cell.layer] == cell.dim
    return f"{source if whole else f'subvector({source}, 1, {cell.dim})'}::halfvec({cell.dim})"


def _sign(search: Search, cell: SubModel, source: str) -> str:
    return f"binary_quantize({_vector(search, cell, source)})::bit({cell.dim})"


def _index(search: Search, stage: Stage, operators: str) -> str:
    cell = stage.cell
    return (
        f"CREATE INDEX documents_{str(cell).lower()}_{operators.partition('_')[0]} ON documents\n"
        f"    USING hnsw (({stage.form(search, cell, f'l{cell.layer}')}) {operators});\n\n"
    )


def _function(search: Search, name: str, stages: Sequence[Stage], keep: Sequence[int]) -> str:
    """An SQL function (vectors of a query, k) -> (id, similarity), a common table expression a shortlist."""
    arguments = ", ".join(f"q{layer} vector({dim})" for layer, dim in search.widths.items())
    settings = f"SET hnsw.ef_search = {min(keep[0], EF_LIMIT)}"
    if keep[0] > EF_LIMIT:  # pgvector 0.8 goes on where ef_search ends
        settings += " SET hnsw.iterative_scan = 'strict_order'"
    columns = ", ".join(["id", *(f"l{layer}" for layer in search.widths)])
    source, shortlists = "documents", []
    for number, (stage, count) in enumerate(zip(stages, keep, strict=False), start=1):
        order = _distance(search, stage, source)
        shortlists.append(
            f"    stage{number} AS MATERIALIZED (\n        SELECT {columns} FROM {source}\n"
            f"        ORDER BY {order} LIMIT {count}\n    )"
        )
        source = f"stage{number}"
    last = _distance(search, stages[-1], source)
    return (
        f"CREATE FUNCTION {name}({arguments}, k integer DEFAULT {TOP})\n"
        "RETURNS TABLE (id bigint, similarity double precision)\n"
        f"LANGUAGE sql STABLE {settings} AS $$\n    WITH\n" + ",\n".join(shortlists) + "\n"
        f"    SELECT {source}.id, 1 - ({last}) FROM {source} ORDER BY {last} LIMIT k\n$$;\n"
    )


def _distance(search: Search, stage: Stage, source: str) -> str:
    cell = stage.cell
    document = stage.form(search, cell, f"{source}.l{cell.layer}")
    return f"{document} {stage.operator} {stage.form(search, cell, f'q{cell.layer}')}"
