"""Vespa 8: an application package with an embedder a layer, a schema, and a rank phase a stage."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

from embedtrain.deploy.search import TOP, Files, Search, readme
from embedtrain.types import InputError, SubModel

PHASES = ("second-phase", "global-phase")  # after the first

ABOUT = """This folder is an application package: `vespa deploy` it. Vespa embeds texts itself, from
`models/*.onnx`, and puts the prompts before them; pooling and truncation are in the graph, so
`pooling-strategy` is `none`. Feed documents with the field `text`; `query.json` is the body of
`POST /search/`, with your question in place of `<question>`.

`rerank-count` of the second phase counts documents of each content node. Later stages are kept as bfloat16
and may be paged to disk."""


def graphs(search: Search) -> tuple[SubModel, ...]:
    """A graph a layer: Vespa takes leading coordinates of it."""
    return search.whole


def files(search: Search) -> Files:
    """services.xml, schemas/doc.sd, models/, query.json, README.md.

    Raises:
        InputError: for more stages than Vespa has phases, or a prompt that does not end in one space.
    """
    if len(search.cells) > 1 + len(PHASES):
        raise InputError(f"Vespa ranks in {1 + len(PHASES)} phases, the funnel has {len(search.cells)} cells")
    models = {f"models/l{cell.layer}.onnx": search.graphs[cell].model for cell in search.whole}
    return {
        "services.xml": _services(search),
        "schemas/doc.sd": _schema(search),
        "models/tokenizer.json": search.graphs[search.whole[-1]].tokenizer,
        "query.json": json.dumps(_query(search), indent=2) + "\n",
        "README.md": readme(search, "Vespa", ABOUT),
        **models,
    }


def _services(search: Search) -> str:
    services = ET.Element("services", version="1.0")
    container = ET.SubElement(services, "container", id="default", version="1.0")
    for cell in search.whole:
        _embedder(container, search, cell)
    ET.SubElement(container, "document-api")
    ET.SubElement(container, "search")
    content = ET.SubElement(services, "content", id="documents", version="1.0")
    ET.SubElement(content, "min-redundancy").text = "1"
    ET.SubElement(ET.SubElement(content, "documents"), "document", type="doc", mode="index")
    nodes = ET.SubElement(content, "nodes")
    ET.SubElement(nodes, "node", {"hostalias": "node1", "distribution-key": "0"})
    ET.indent(services)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(services, encoding="unicode") + "\n"


def _embedder(container: ET.Element, search: Search, cell: SubModel) -> None:
    made = ET.SubElement(container, "component", id=f"l{cell.layer}", type="hugging-face-embedder")
    ET.SubElement(made, "transformer-model", path=f"models/l{cell.layer}.onnx")
    ET.SubElement(made, "tokenizer-model", path="models/tokenizer.json")
    ET.SubElement(made, "max-tokens").text = str(search.max_length)
    if not search.graphs[cell].token_types:
        ET.SubElement(made, "transformer-token-type-ids")
    ET.SubElement(made, "transformer-output").text = "sentence_embedding"
    ET.SubElement(made, "pooling-strategy").text = "none"
    ET.SubElement(made, "normalize").text = "true"  # of leading coordinates
    said = {role: _prepended(search.prompt(role)) for role in ("query", "document") if search.prompt(role)}
    if said:
        prepend = ET.SubElement(made, "prepend")
        for role, prompt in said.items():
            ET.SubElement(prepend, role).text = prompt


def _prepended(prompt: str) -> str:
    """A prompt without the space that Vespa puts behind it."""
    if prompt != f"{prompt.strip()} " or not prompt.replace("\n", " ").isprintable():
        raise InputError(
            f"Vespa puts one space between prompt and text, so {prompt!r} cannot be its prompt: choose "
            "another store, or train with a prompt that ends in one space"
        )
    return prompt[:-1]


def _schema(search: Search) -> str:
    first, *later = search.cells
    fields = [
        f"""    field {first} type {_tensor(first, later)} {{
        indexing: input text | embed l{first.layer} | attribute | index
        attribute {{
            distance-metric: prenormalized-angular
        }}
    }}
"""
    ]
    fields += [
        f"""    field {cell} type {_tensor(cell, later)} {{
        indexing: input text | embed l{cell.layer} | attribute
        attribute: paged
    }}
"""
        for cell in later
    ]
    return f"""# Search: {search.stages}.
schema doc {{
    document doc {{
        field text type string {{
            indexing: index | summary
            index: enable-bm25
        }}
    }}
{"".join(fields)}{_profile(search)}}}
"""


def _tensor(cell: SubModel, later: list[SubModel]) -> str:
    """bfloat16 where vectors are many or large; the first stage of a funnel is small and compared exactly."""
    kind = "float" if later and cell not in later else "bfloat16"
    return f"tensor<{kind}>(x[{cell.dim}])"


def _profile(search: Search) -> str:
    """A cut is ranked a second time by the cosine, so that its scores are cosines."""
    first = search.cells[0]
    later = list(zip(search.cells[1:], search.keep, strict=True)) or [(first, 10 * TOP)]
    inputs = "".join(f"            query({cell}) tensor<float>(x[{cell.dim}])\n" for cell in search.cells)
    phases = "".join(
        f"""        {phase} {{
            rerank-count: {count}
            expression: sum(query({cell}) * attribute({cell}))
        }}
"""
        for phase, (cell, count) in zip(PHASES, later, strict=False)
    )
    return f"""    rank-profile search {{
        inputs {{
{inputs}        }}
        first-phase {{
            expression: closeness(field, {first})
        }}
{phases}    }}
"""


def _query(search: Search) -> dict[str, object]:
    first = search.cells[0]
    found = search.keep[0] if search.keep else 10 * TOP
    nearest = f"{{targetHits:{found}}}nearestNeighbor({first},{first})"
    vectors = {f"input.query({cell})": f"embed(l{cell.layer}, @question)" for cell in search.cells}
    return {
        "yql": f"select * from doc where {nearest}", "question": "<question>", **vectors,
        "ranking.profile": "search", "hits": TOP,
    }  # fmt: skip
