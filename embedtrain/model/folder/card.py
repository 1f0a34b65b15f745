"""The README.md of a saved model, and its scores in the form the Hugging Face hub reads: `model-index`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import yaml
from huggingface_hub import EvalResult, ModelCardData

from embedtrain.escaping import markdown, python_string
from embedtrain.files.scores import TaskFacts, main_scores
from embedtrain.model.folder.contract import Contract
from embedtrain.types import Score

MTEB = "https://github.com/embeddings-benchmark/mteb/"

SOURCE = (
    "sentence-transformers has no such pooling, so its source is in the `embedtrain_*.py` files here, which "
    "`trust_remote_code=True` runs. `embedtrain.model.folder.export.load_encoder` needs none of them."
)


def model_card(
    contract: Contract, name: str, *, is_plain: bool = True, index: str = "", notes: Sequence[str] = ()
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
        *([] if is_plain else [SOURCE, ""]),
        "`embedtrain.json` holds the settings that decide an embedding.",
        "",
    ]
    return "\n".join(lines)


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
