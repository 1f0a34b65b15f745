"""The first part of every Python file written for a store: texts to vectors by sentence-transformers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from embedtrain.deploy.search import Search
from embedtrain.types import SubModel

EMBED = '''"""{title}"""

{imports}

{others}

MODELS = {models}  # folder by layer
VECTORS = {vectors}  # (layer, dims) by name
NO_PROMPT = {unprompted}  # roles without one, although the model has a default prompt
_loaded = {{}}


def embed(texts, role):
    """Unit vectors by name, (texts, dims) float32. The role, "query" or "document", decides the prompt."""
    found = {{}}
    for layer, folder in MODELS.items():
        if layer not in _loaded:
            path = str((Path(__file__).parent / folder).resolve())
            _loaded[layer] = SentenceTransformer(path{trust})
        model = _loaded[layer]
        encode = model.encode_query if role == "query" else model.encode_document
        whole = encode(list(texts), prompt="" if role in NO_PROMPT else None, convert_to_numpy=True)
        for name, (of, dims) in VECTORS.items():
            if of == layer:
                part = np.asarray(whole[:, :dims], dtype=np.float32)
                found[name] = part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12)
    return found
'''


def client(
    title: str,
    search: Search,
    vectors: Iterable[SubModel],
    imports: Sequence[str] = (),
    own: Sequence[str] = (),
) -> str:
    """Python that defines `embed(texts, role)`, the beginning of a file in the folder of a store.

    Args:
        title: first line of the file.
        search: whose models it loads.
        vectors: that it gives.
        imports: of the standard library.
        own: imports of the store's packages.
    """
    others = ["import numpy as np", "from sentence_transformers import SentenceTransformer", *own]
    roles = ("query", "document") if search.default_prompt else ()
    return EMBED.format(
        title=title,
        imports=_sorted(["from pathlib import Path", *imports]),
        others=_sorted(others),
        models="{" + ", ".join(f'{layer}: "{search.folder(layer)}"' for layer in search.widths) + "}",
        vectors=json.dumps({str(cell): cell for cell in vectors}),
        unprompted=json.dumps([role for role in roles if not search.prompt(role)]),
        trust=", trust_remote_code=True" if search.needs_code else "",
    )


def _sorted(imports: Iterable[str]) -> str:
    return "\n".join(sorted(imports, key=lambda line: (line.startswith("from"), line)))
