"""The README.md of a saved model, and its scores in the form the Hugging Face hub reads: `model-index`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from embedtrain.escaping import markdown, python_string
from embedtrain.files.scores import TaskFacts, main_scores
from embedtrain.model.folder.contract import Contract
from embedtrain.types import Score

MTEB = "https://github.com/embeddings-benchmark/mteb/"

TURNED = (
    "The decoder's tokens see those after them (`is_causal: false` in config.json), which transformers reads "
    "from 5.2 on. sentence-transformers takes the folder from 6.0 on and refuses it before; other programs "
    "may run it causal in silence, which gives other vectors."
)
SOURCE = (
    "sentence-transformers has no such pooling, so its source is in the `embedtrain_*.py` files here, which "
    "`trust_remote_code=True` runs. `embedtrain.model.folder.export.load_encoder` needs none of them."
)


class Lineage(NamedTuple):
    """What a card says of where a model comes from."""

    license: str = ""
    datasets: tuple[str, ...] = ()  # of the hub, that it was trained on


def read_lineage(folder: Path) -> Lineage:
    """What the card in a folder says; empty where there is none that can be read."""
    try:
        data = ModelCard.load(folder / "README.md", ignore_metadata_errors=True).data
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError):
        return Lineage()
    named = data.datasets if isinstance(data.datasets, list) else [data.datasets]
    return Lineage(
        data.license if isinstance(data.license, str) else "",
        tuple(name for name in named if isinstance(name, str)),
    )


def model_card(
    contract: Contract,
    name: str,
    lineage: Lineage,
    *,
    is_plain: bool = True,
    index: str = "",
    notes: Sequence[str] = (),
) -> str:
    """A short model card: what the model is, how to load it, which sub-models were trained.

    `is_plain` says that sentence-transformers loads it without code from the folder; `index` is what
    `model_index` made of its scores; `notes` are lines of the list.
    """
    unit = "unit vectors" if contract.normalize else "vectors (not normalised)"
    trained = ", ".join(f"({sub.layer}, {sub.dim})" for sub in contract.trained)
    pooling, source = markdown(contract.pooling), markdown(contract.source or "not recorded")
    lines = [
        "---",
        "library_name: sentence-transformers",
        "pipeline_tag: sentence-similarity",
        "tags: [sentence-transformers, feature-extraction, sentence-similarity, embedtrain]",
        *_origin(contract, lineage),
        *([index] if index else []),
        "---",
        "",
        f"# {markdown(name)}",
        "",
        f"A text-embedding model of {contract.num_layers} transformer blocks that gives {unit} of "
        f"{contract.width} coordinates.",
        "",
        f"- Pooling: {pooling}; texts longer than {contract.max_length} tokens are cut off.",
        *_prompts(contract),
        f"- Starting model: {source}.",
        f"- Trained sub-models (layer, dim): {trained or 'none recorded'}.",
        *(f"- {note}" for note in notes),
        "",
        "```python",
        "from sentence_transformers import SentenceTransformer",
        "",
        f"model = SentenceTransformer({python_string(name)}{'' if is_plain else ', trust_remote_code=True'})",
        *_calls(contract),
        "```",
        "",
        *_clients(contract, name, is_plain=is_plain),
        *([] if is_plain else [SOURCE, ""]),
        "`embedtrain.json` holds the settings that decide an embedding.",
        "",
    ]
    return "\n".join(lines)


def _origin(contract: Contract, lineage: Lineage) -> list[str]:
    """The YAML of base_model, license and datasets, as far as they are known."""
    base = contract.source if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", contract.source) else ""
    facts = {"base_model": base, "license": lineage.license, "datasets": list(lineage.datasets)}
    known = {key: value for key, value in facts.items() if value}
    return yaml.safe_dump(known, sort_keys=False, width=math.inf).splitlines() if known else []


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


def _prompts(contract: Contract) -> list[str]:
    """A line on prompts; none without any."""
    if not contract.prompts:
        return []
    said = ", ".join(f"{name} {prompt!r}" for name, prompt in sorted(contract.prompts.items()))
    pooled = "" if contract.pool_prompt else "; their tokens are not pooled"
    return [f"- Prompts: {markdown(said)}{pooled}."]


def _calls(contract: Contract) -> list[str]:
    """How to encode: by role where there are prompts."""
    if not contract.prompts:
        return ['embeddings = model.encode(["first text", "second text"])']
    return [
        'queries = model.encode_query(["a question"])',
        'documents = model.encode_document(["first text", "second text"])',
    ]


def model_index(name: str, scores: Sequence[Score], tasks: Mapping[str, TaskFacts]) -> str:
    """The `model-index` part of a card's YAML, main metrics in mteb's units (mostly 0..1); "" without scores.

    Args:
        name: the model's.
        scores: of the one cell that the model is.
        tasks: what they were measured on; a score of a task that is not here is left out.
    """
    results = [_result(score, tasks[score.task]) for score in main_scores(scores) if score.task in tasks]
    if not results:
        return ""
    facts = ModelCardData(model_name=name, eval_results=results).to_dict()  # type: ignore[no-untyped-call]
    part = {"model-index": facts["model-index"]}
    return yaml.safe_dump(part, sort_keys=False, width=math.inf).rstrip("\n")  # escapes what is not ASCII


def _result(score: Score, task: TaskFacts) -> EvalResult:
    where = task.subset if task.official else "local"
    return EvalResult(
        task_type=task.hub_type,
        task_name=task.type,
        dataset_type=task.dataset,
        dataset_name=f"{score.task} ({where})",
        dataset_config=task.subset,
        dataset_split=score.split,
        dataset_revision=task.revision,
        metric_type=score.metric,
        metric_name=score.metric,
        metric_value=score.value,
        source_name="MTEB" if task.official else None,
        source_url=MTEB if task.official else None,
    )
