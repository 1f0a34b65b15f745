"""How programs load a saved model, as its card shows it: code that runs where the model is `name`."""

from __future__ import annotations

import re

from embedtrain.escaping import python_string
from embedtrain.model.folder.contract import Contract


def usage(contract: Contract, name: str, *, is_plain: bool, has_graph: bool) -> list[str]:
    """Lines of Markdown: sentence-transformers, embedtrain, ONNX, and clients that give no prompts.

    Args:
        contract: of the folder.
        name: of the model, as a loader is given it.
        is_plain: whether sentence-transformers loads it without code from the folder.
        has_graph: whether it has ONNX graphs.
    """
    is_plain = is_plain and contract.code is None
    trust = "" if is_plain else ", trust_remote_code=True"
    return [
        "```python",
        "from sentence_transformers import SentenceTransformer",
        "",
        f"model = SentenceTransformer({python_string(name)}{trust})",
        *_calls(contract),
        "```",
        "",
        *_own(contract, name),
        *_graph(contract, name, there=has_graph),
        *_clients(contract, name, is_plain=is_plain),
    ]


def _own(contract: Contract, name: str) -> list[str]:
    """At any size, with embedtrain."""
    sub = contract.trained[0] if contract.trained else None
    size = f", layer={sub.layer}, dim={sub.dim}" if sub is not None else ""
    trust = "" if contract.code is None else ", trust_remote_code=True"
    role = ', role="query"' if contract.prompts.get("query") else ""
    return [
        "With embedtrain, at any layer and dim:",
        "",
        "```python",
        "import embedtrain",
        "",
        f"model = embedtrain.load({python_string(name)}{trust})",
        f'embeddings = model.encode(["first text", "second text"]{size}{role})',
        "```",
        "",
    ]


def _graph(contract: Contract, name: str, *, there: bool) -> list[str]:
    """With onnxruntime; first the command that writes the graph, where it is not there."""
    out = f"{name}-onnx"
    word = name if re.fullmatch(r"[\w./-]+", name) else "MODEL"  # others would need a shell's quotes
    trust = "" if contract.code is None else " trust_remote_code=true"
    command = f"embedtrain-export model={word} out={word}-onnx onnx=true{trust}"
    write = [] if there else ["```bash", command, "```", ""]
    if contract.prompts and not contract.pool_prompt:
        said = "The graph also takes `prompt_len`: a number a text, the tokens of its prompt."
        return ["As an ONNX graph:", "", *write, said, ""]
    folder = name if there else out
    document = contract.prompts.get("document", "")
    before = f"{python_string(document)} + " if document else ""
    return [
        "As an ONNX graph:",
        "",
        *write,
        "```python",
        "import numpy as np",
        "import onnxruntime",
        "from tokenizers import Tokenizer",
        "",
        f"folder = {python_string(folder)}",
        'session = onnxruntime.InferenceSession(f"{folder}/onnx/model.onnx")',
        f'texts = [{before}text for text in ("first text", "second text")]',
        'encoded = Tokenizer.from_file(f"{folder}/tokenizer.json").encode_batch(texts)',
        "given = {",
        '    "input_ids": [item.ids for item in encoded],',
        '    "attention_mask": [item.attention_mask for item in encoded],',
        '    "token_type_ids": [item.type_ids for item in encoded],',
        "}",
        "inputs = {item.name: np.array(given[item.name]) for item in session.get_inputs()}",
        '(embeddings,) = session.run(["sentence_embedding"], inputs)',
        "```",
        "",
    ]


def _clients(contract: Contract, name: str, *, is_plain: bool) -> list[str]:
    """How to give prompts to programs that call plain `encode`; none where there are no prompts."""
    query, document = (contract.prompts.get(role, "") for role in ("query", "document"))
    if not (query or document):
        return []
    model, one, two = (python_string(text) for text in (name, query, document))
    trust = (
        ("", "", "")
        if is_plain
        else (
            ', model_kwargs={"trust_remote_code": True}',
            *(", trust_remote_code=True",) * 2,
        )
    )
    default = ', default_prompt_name="document"' if document else ""
    return [
        "LangChain, LlamaIndex and Chroma call `encode` without a role. Give them the prompts:",
        "",
        "```python",
        f"HuggingFaceEmbeddings(model_name={model}{trust[0]},  # langchain_huggingface",
        f'    encode_kwargs={{"prompt": {two}}}, query_encode_kwargs={{"prompt": {one}}})',
        f"HuggingFaceEmbedding({model}{trust[1]},  # llama_index.embeddings.huggingface",
        f"    query_instruction={one}, text_instruction={two})",
        "# chromadb.utils.embedding_functions",
        f"SentenceTransformerEmbeddingFunction({model}{default}{trust[2]})",
        'collection.query(query_embeddings=model.encode_query(["a question"]))',
        "```",
        "",
    ]


def _calls(contract: Contract) -> list[str]:
    """How to encode: by role where there are prompts."""
    if not contract.prompts:
        return ['embeddings = model.encode(["first text", "second text"])']
    return [
        'queries = model.encode_query(["a question"])',
        'documents = model.encode_document(["first text", "second text"])',
    ]
