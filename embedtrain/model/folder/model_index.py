"""Scores in the card of a model, in the form the Hugging Face hub reads: `model-index`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from huggingface_hub import EvalResult, ModelCardData

from embedtrain.files.scores import TaskFacts, main_scores
from embedtrain.types import Score

MTEB = "https://github.com/embeddings-benchmark/mteb/"


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
    text: str = ModelCardData(model_name=name, eval_results=results).to_yaml()
    return text[text.index("model-index:") :].rstrip("\n")


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
