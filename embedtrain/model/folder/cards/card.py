"""The README.md of a saved model, and its scores in the form the Hugging Face hub reads: `model-index`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from embedtrain.escaping import markdown
from embedtrain.files import owned
from embedtrain.files.atomic import write_bytes, write_text
from embedtrain.files.scores import TaskFacts, main_scores
from embedtrain.model.folder.cards.usage import usage
from embedtrain.model.folder.contract import Contract, read_contract
from embedtrain.model.folder.modules import MODULES
from embedtrain.model.folder.shipped_pooling import PREFIX
from embedtrain.model.folder.st_folder import NEWER_TRANSFORMER
from embedtrain.model.rotation.rotation import FILE
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
OWN_CODE = (
    "The model is code of its own, in the other `.py` files here, which came with the starting model. Every "
    "loader runs them only with `trust_remote_code=True`: read them first."
)
GRAPHS = "onnx"  # folder of the graphs of a model
PICTURE = "heat_map.png"  # in the folder of a model whose run was measured


class Story(NamedTuple):
    """What a card says of the run that made a model; each part is empty where it is not known."""

    model_index: str = ""  # what the function of that name made of the scores
    verdict: Sequence[str] = ()  # lines, the first thing a card says
    grid: str = ""  # Markdown table of the scores of all cells
    title: str = ""  # what these scores are
    picture: Path | None = None  # of the same, to be copied into the folder
    data: Sequence[str] = ()  # what it was trained on
    recipe: str = ""  # YAML of the settings that were given


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
    has_graph: bool = False,
    story: Story = Story(),  # noqa: B008 (a NamedTuple is constant)
    notes: Sequence[str] = (),
) -> str:
    """A model card: the verdict of its run, how to load it, scores of all cells, data, recipe, contract.

    `is_plain` says that sentence-transformers loads it without code from the folder, `has_graph` that the
    folder has ONNX graphs; `notes` are lines of the list.
    """
    unit = "unit vectors" if contract.normalize else "vectors (not normalised)"
    lines = [
        "---",
        "library_name: sentence-transformers",
        "pipeline_tag: sentence-similarity",
        "tags: [sentence-transformers, feature-extraction, sentence-similarity, embedtrain]",
        *_origin(contract, lineage),
        *([story.model_index] if story.model_index else []),
        "---",
        "",
        f"# {markdown(name)}",
        "",
        *_section("Verdict of the run", [f"- {markdown(line)}" for line in story.verdict]),
        f"A text-embedding model of {contract.num_layers} transformer blocks that gives {unit} of "
        f"{contract.width} coordinates.",
        "",
        *usage(contract, name, is_plain=is_plain, has_graph=has_graph),
        *([] if is_plain else [SOURCE, ""]),
        *([] if contract.code is None else [OWN_CODE, ""]),
        *_scores(story),
        *_section("Training data", [f"- {markdown(line)}" for line in story.data]),
        *_section("Recipe", _fenced(story.recipe.strip())),
        *_section("Contract", _contract(contract, notes)),
    ]
    return "\n".join(lines)


def renew_card(folder: Path, story: Story) -> None:
    """Write the card of a saved folder again, with what its run measured."""
    contract = read_contract(folder)
    assert contract is not None
    if story.picture is not None:
        owned.expect(folder, PICTURE)
        write_bytes(folder / PICTURE, story.picture.read_bytes())
    card = model_card(
        contract,
        folder.name,
        read_lineage(folder),
        is_plain=not any(folder.glob(f"{PREFIX}*.py")),
        has_graph=(folder / GRAPHS).is_dir(),
        story=story,
        notes=[TURNED] if NEWER_TRANSFORMER in (folder / MODULES).read_text("utf-8") else [],
    )
    write_text(folder / "README.md", card)


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""] if lines else []


def _fenced(text: str) -> list[str]:
    """YAML in a fence that is longer than any in it; nothing without text."""
    marks = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return [f"{marks}yaml", text, marks] if text else []


def _scores(story: Story) -> list[str]:
    """The grid as table and as picture."""
    picture = [f"![{markdown(story.title)}]({PICTURE})", ""] if story.picture is not None else []
    return (
        _section("Scores", [f"{markdown(story.title)}", "", story.grid, "", *picture]) if story.grid else []
    )


def _contract(contract: Contract, notes: Sequence[str]) -> list[str]:
    """What decides an embedding, in words."""
    trained = ", ".join(f"({sub.layer}, {sub.dim})" for sub in contract.trained)
    pooling, source = markdown(contract.pooling), markdown(contract.source or "not recorded")
    return [
        f"- Pooling: {pooling}; texts longer than {contract.max_length} tokens are cut off.",
        *_prompts(contract),
        *_rotation(contract),
        f"- Starting model: {source}.",
        f"- Trained sub-models (layer, dim): {trained or 'none recorded'}.",
        *(f"- {note}" for note in notes),
        "",
        "`embedtrain.json` holds all settings that decide an embedding.",
    ]


def _rotation(contract: Contract) -> list[str]:
    """A line on the layers whose vectors are rotated; none without any."""
    if not contract.rotation:
        return []
    layers = ", ".join(map(str, contract.rotation))
    return [f"- The vectors of layers {layers} are rotated, each by a matrix of its own (`{FILE}`)."]


def _origin(contract: Contract, lineage: Lineage) -> list[str]:
    """The YAML of base_model, license and datasets, as far as they are known."""
    base = contract.source if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", contract.source) else ""
    facts = {"base_model": base, "license": lineage.license, "datasets": list(lineage.datasets)}
    known = {key: value for key, value in facts.items() if value}
    return yaml.safe_dump(known, sort_keys=False, width=math.inf).splitlines() if known else []


def _prompts(contract: Contract) -> list[str]:
    """A line on prompts; none without any."""
    if not contract.prompts:
        return []
    said = ", ".join(f"{name} {prompt!r}" for name, prompt in sorted(contract.prompts.items()))
    pooled = "" if contract.pool_prompt else "; their tokens are not pooled"
    return [f"- Prompts: {markdown(said)}{pooled}."]


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
