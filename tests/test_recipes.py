"""Every recipe and every option of conf/ composes and builds, so that none rots unnoticed."""

import json
import math
import re
from dataclasses import replace
from functools import cache

import hydra
import pytest
import torch
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from small_runs import write_rows

from embedtrain.cli.commands import COMMANDS
from embedtrain.data.module import DataModule
from embedtrain.model.gates import OwnGated
from embedtrain.model.pooling import Pooling
from embedtrain.objective.losses.contrastive import InfoNCE
from embedtrain.run.run import Run
from embedtrain.settings.commands import TrainSettings
from embedtrain.settings.component import built
from embedtrain.settings.compose import effective, from_node, given, schema, settings_of
from embedtrain.settings.options import settings_from
from embedtrain.settings.places import config_dir, recipe_names
from embedtrain.settings.stages import stages_of
from embedtrain.training.trainer import make_trainer
from embedtrain.types import InputError

CONF = config_dir("conf")
FOLDER, RECIPES = config_dir("recipes"), recipe_names()
OPTIONS = sorted((path.parent.name, path.stem) for path in CONF.glob("*/*.yaml"))
SMALLER = [name for name in RECIPES if "minilm" in name or "smollm2" in name]
SMALLER_SLOW = [pytest.param(name, marks=[pytest.mark.slow] * (name in SMALLER)) for name in RECIPES]
GIVEN = {"data.train": "rows.jsonl", "name": "x"}  # what a person must say, for options composed alone
PAIRS = "{_target_: embedtrain.objective.plan.FixedPairs}"
COSENT = "{_target_: embedtrain.objective.losses.scored.CoSENT}"
TERM = f"{{_target_: embedtrain.objective.losses.terms.Term, loss: {COSENT}}}"
MUST_GIVE = {  # and with one option
    ("guide", "model"): {"guide.path": "model"},
    ("method", "weighted"): {"method.shares": "[1,1]"},
    ("maker", "generated"): {"maker.path": "model"},
    ("loss", "weighted_sum"): {"loss.terms": f"[{TERM}]"},
    ("plan", "scheduled"): {"plan.plan": PAIRS, "plan.weights": "[{layer: 12, weight: 0.5}]"},
}
SIZE = {"num_layers": 12, "width": 768}


@cache
def compose(name, *overrides, folder=CONF, command="train"):
    """The settings; `package:` names are not looked up, a recipe composes without its extra."""
    kind = COMMANDS[command].settings
    ConfigStore.instance().store(name=f"{command}_schema", node=schema(kind))
    search = [f"hydra.searchpath=[file://{CONF}]"] if folder != CONF else []
    with hydra.initialize_config_dir(str(folder), version_base="1.3"):
        config = hydra.compose(name, overrides=[*overrides, *search])
    text = OmegaConf.to_yaml(config)
    return settings_of(kind, OmegaConf.create(text.replace("package:", "installed/")))


@cache
def stages(name):
    """The stages of a recipe."""
    return stages_of(compose(name, folder=FOLDER))


def build_parts(settings, folder):
    """Everything a run builds but the encoder, whose size is given by the plan's own sizes."""
    size = size_for(settings)
    machine = replace(settings.trainer, accelerator="cpu", devices=1)  # the tests' machine, not the recipe's
    if settings.pooling is not None:
        with torch.device("meta"):  # the 7B sizes would fill the memory
            made = settings.pooling.build(hidden_size=size["width"], num_layers=12)
            assert isinstance(made, Pooling | OwnGated)
    for group in ("negatives", "gradcache", "queue", "mining", "eval_during"):
        built(getattr(settings, group))
    loss, distill = settings.loss.build(), built(settings.distill, width=size["width"], guide_width=384)
    settings.objective.build(loss=loss, distill=distill)
    return {
        "plan": settings.plan.build(seed=0, **size),
        "optim": settings.optim.build(),
        "data": DataModule(settings.data, seed=0, collate=None),
        "trainer": make_trainer(machine, folder=folder),
    }


def size_for(settings):
    """The last pair of a fixed plan is the full model, or the largest dim; other plans fit a BERT base."""
    given = settings.plan.settings
    if pairs := given.get("pairs"):
        return {"num_layers": pairs[-1][0], "width": pairs[-1][1]}
    dims = given.get("dims") or [SIZE["width"]]
    return SIZE | {"width": SIZE["width"] if settings.plan.target.endswith("TwoDMSE") else max(dims)}


def test_there_is_a_recipe():
    assert RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_composes_and_builds(name, tmp_path):
    settings = compose(name, folder=FOLDER)
    assert re.fullmatch(r"[\w-]+", settings.name), "the name of a run is that of a folder"
    for _, staged in stages(name):
        parts = build_parts(staged, tmp_path)
        assert parts["plan"](0)[-1].sub.layer == parts["plan"].sub_models[-1].layer
        assert callable(staged.step.build().step)
    full = parts["plan"].sub_models[-1]
    for layer, dim in settings.exports:
        assert 1 <= layer <= full.layer
        assert 1 <= dim <= full.dim
    assert settings.backbone.target == "embedtrain.model.folder.export.load_encoder"


@pytest.mark.parametrize("name", SMALLER_SLOW)
def test_a_recipe_says_in_python_what_it_says_on_a_command_line(name, monkeypatch):
    """Options, files below it and numbers as 1e-4, which YAML of Python takes for a text."""
    place = "embedtrain.settings.compose.package_path"
    monkeypatch.setattr(place, lambda name: name.replace("package:", "installed/"))
    said = settings_from(TrainSettings, "train", {"recipe": name})
    assert effective(said) == effective(compose(name, folder=FOLDER))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_how_to_run_it_on_what_and_where_it_comes_from(name):
    header = header_of(name)
    for word in ("source", "command", "hardware", "hours", "expected"):
        assert header.get(word), f"the header states no {word}"
    assert f"recipe={name}" in header["command"] or "make quickstart" in header["command"]
    table = table_of(header["expected"])
    assert table[0] == ["score of", "score", "spread", "from"]
    assert table[1:], "a table without rows"
    for row in table[1:]:
        assert len(row) == 4
        assert row[3].startswith(("published", "ours"))
        assert re.search(r"\d", row[1]) or row[1] == "not measured", row


@pytest.mark.parametrize("name", RECIPES)
def test_the_hours_of_a_recipe_are_computed_or_measured(name):
    hours = header_of(name)["hours"]
    if computed := re.fullmatch(r"([\d.]+) computed[^:]*: ([-+*/().\de ]+)", hours):
        stated, formula = float(computed[1]), computed[2]
        assert stated == pytest.approx(eval(formula), rel=0.1), formula  # digits and operators alone
    else:
        assert re.match(r"[\d.]+ (measured|assumed)", hours)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_for_large_machines_has_a_smaller_one_that_runs_offline(name):
    if not (named := header_of(name).get("smaller")):
        settings = compose(name, folder=FOLDER)
        assert settings.backbone.settings["path"].startswith("installed/")
        assert settings.trainer.accelerator == "cpu"
        return
    smaller = re.search(r"recipe=([\w/]+)", named)[1]
    assert smaller in RECIPES
    assert header_of(smaller)["source"] == name
    for large, little in zip(stages(name), stages(smaller), strict=True):
        for group in "step plan loss distill objective negatives guide queue mining".split():
            targets = [(part := getattr(each.settings, group)) and part.target for each in (large, little)]
            assert targets[0] == targets[1], f"{smaller} is of another {group}"
    assert not header_of(smaller).get("smaller")


def test_the_list_of_recipes_is_that_of_their_headers():
    page = (FOLDER / "README.md").read_text("utf-8")
    rows = {row[0].partition("](")[0].strip("[`"): row for row in table_of(page)[1:]}
    assert set(rows) == set(RECIPES)
    for name, (_, _, hardware, hours, published, ours) in rows.items():
        header = header_of(name)
        scores = table_of(header["expected"])[1:]
        assert hardware == header["hardware"], name
        assert hours == re.match(r"[\d.]+", header["hours"])[0], name
        for cell, whose in ((published, "published"), (ours, "ours")):
            theirs = [f"{what}: {score}" for what, score, _, origin in scores if origin.startswith(whose)]
            assert cell == (theirs[0] if theirs else ""), name


def header_of(name):
    """What the comments above `defaults` say, by their first word; tables line by line."""
    header, _, rest = (FOLDER / f"{name}.yaml").read_text("utf-8").partition("\ndefaults:")
    assert rest, "a recipe has defaults"
    assert all(line.startswith("#") for line in header.splitlines()), "the header stands above `defaults`"
    found, key = {}, ""
    for line in header.splitlines():
        if word := re.match(r"# (\w+)\s{2,}(\S.*)", line):
            key = word[1]
            found[key] = word[2]
        elif key and line.startswith("#     "):
            found[key] += "\n" + line[1:].strip() if "|" in line else " " + line[1:].strip()
    return found


def table_of(text):
    """Rows of the Markdown tables of a text, their rules left out."""
    rows = [line.strip().strip("|") for line in text.splitlines() if line.strip().startswith("|")]
    return [[cell.strip() for cell in row.split("|")] for row in rows if not set(row) <= set("|- ")]


@pytest.mark.parametrize("name", SMALLER_SLOW)
def test_two_steps_of_a_recipe_run(name, tiny_bert, tiny_llama, tmp_path):
    """Its own plan, losses, rules and stages on 4 layers x 32 and 4 rows. Smaller ones run no other code."""
    settings = compose(name, folder=FOLDER)
    decoder = bool(
        settings.backbone.settings.get("attention") or settings.backbone.settings.get("append_eos")
    )
    run = Run(tiny(settings, tiny_llama if decoder else tiny_bert, tiny_bert, tmp_path))
    try:
        run.fit()
    finally:
        run.folder.release()
    lines = [json.loads(line) for line in (run.folder.path / "metrics.jsonl").read_text("utf-8").splitlines()]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert len(losses) == run.stage.trainer.global_step == 2
    assert all(map(math.isfinite, losses))


def tiny(settings, backbone, guide, folder):
    """The same run of a tiny backbone: two steps of each stage on four rows."""
    scored = "scored" in settings.loss.target
    texts = ("a cat sleeps", "a dog runs", "the bird sings in the tree", "rain and sun on the river")
    extra = {"score": 1.0} if scored else {"negatives": ["money in the bank", "a red ball"]}
    if any(stage.get("loss") == "teacher_kl" for stage in settings.stages):
        extra["teacher_scores"] = [0.9, 0.2, 0.1]
    rows = [
        {"query": text, "positive": f"{text} {number}"} | extra | ({"score": number} if scored else {})
        for number, text in enumerate(texts * 3)
    ]
    train = str(write_rows(folder / "rows.jsonl", rows))
    node = given(settings)
    node |= {"output_root": str(folder), "evaluation": {}, "exports": []}
    few = {"max_steps": 2, "accumulate_grad_batches": 1, "log_every_n_steps": 1, "val_check_interval": 2}
    node["trainer"] = (
        node.get("trainer", {}) | few | {"accelerator": "cpu", "devices": 1, "precision": "32-true"}
    )
    most = min(settings.data.batch_size, 4)
    node["data"] = {"train": train, "batch_size": most, "max_negatives": settings.data.max_negatives}
    node["stages"] = [
        {key: value for key, value in stage.items() if key not in ("data", "trainer")}
        for stage in settings.stages
    ]
    prompts = {role: f"{role}: " for role in node["backbone"].get("prompts") or {}}
    small = {"path": str(backbone), "dtype": "float32", "max_length": 32, "prompts": prompts or None}
    node["backbone"] |= small
    for group, key, value in (
        ("guide", "path", str(guide)),
        ("queue", "size", 8),
        ("plan", "pairs", [[1, 8], [2, 16], [4, 32]]),
        ("plan", "dims", [8, 16] if settings.plan.target.endswith("TwoDMSE") else [8, 16, 32]),
        ("pooling", "latents", None),
        ("pooling", "heads", None),
        ("pooling", "head_width", None),
    ):
        if node.get(group) and key in node[group]:
            node[group][key] = value
    if settings.plan.target.endswith("Espresso"):
        node["plan"]["compress_dim"] = node["distill"]["compress_dim"] = 16
    return from_node(TrainSettings, node)


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=lambda part: part)
def test_an_option_composes_and_builds(group, option, tmp_path):
    must = MUST_GIVE.get((group, option), {})
    given = {
        "train": GIVEN | must,
        "mine": {"source": "rows.jsonl", "out": "x.jsonl", "teacher.path": "m"} | must,
        "merge": {"runs": "[a,b]"} | must,
        "pairs": {"source": "rows.jsonl", "out": "x.jsonl"} | must,
    }
    if group == "logger" and option in ("mlflow", "tensorboard", "trackio"):
        pytest.importorskip(option, reason=f"{option} is not installed")
    command = next(name for name in given if group in COMMANDS[name].settings.__dataclass_fields__)
    words = (f"{key}={value}" for key, value in given[command].items())
    part = getattr(compose(command, f"{group}={option}", *words, command=command), group)
    if part is None:
        assert option in ("none", "own", "files"), "only an option that chooses nothing may be empty"
    elif group == "data":
        DataModule(part, seed=0, collate=None)
    elif group == "trainer":
        make_trainer(replace(part, accelerator="cpu", devices=1), folder=tmp_path)
    elif group in ("backbone", "guide", "teacher"):
        with pytest.raises(InputError, match=rf"{group}\.pathh: load_\w+ has no setting"):
            part.changed(pathh=1).build()  # loading needs the model; its settings are checked before
    elif group == "pooling":
        with torch.device("meta"):  # the 7B sizes would fill the memory
            assert isinstance(part.build(hidden_size=768, num_layers=12), Pooling | OwnGated)
    elif group == "objective":
        part.build(loss=InfoNCE(), distill=None)
    else:
        part.build(seed=0, save_dir=tmp_path, guide_width=384, **SIZE)
