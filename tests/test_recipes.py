"""Every recipe and every option of conf/ composes and builds, so that none rots unnoticed."""

import re
from dataclasses import replace

import hydra
import pytest
import torch
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from embedtrain.cli.commands import COMMANDS
from embedtrain.data.module import DataModule
from embedtrain.model.pooling import Pooling
from embedtrain.objective.losses.contrastive import InfoNCE
from embedtrain.objective.matryoshka import Objective
from embedtrain.settings.component import built
from embedtrain.settings.compose import schema, settings_of
from embedtrain.settings.places import config_dir
from embedtrain.settings.stages import stages_of
from embedtrain.training.trainer import make_trainer
from embedtrain.types import InputError

CONF = config_dir("conf")
RECIPES = sorted(path.stem for path in config_dir("recipes").glob("*.yaml"))
OPTIONS = sorted((path.parent.name, path.stem) for path in CONF.glob("*/*.yaml"))
GIVEN = {"data.train": "rows.jsonl", "name": "x"}  # what a person must say, for options composed alone
PAIRS = "{_target_: embedtrain.objective.plan.FixedPairs}"
COSENT = "{_target_: embedtrain.objective.losses.scored.CoSENT}"
TERM = f"{{_target_: embedtrain.objective.losses.terms.Term, loss: {COSENT}}}"
MUST_GIVE = {  # and with one option
    ("guide", "model"): {"guide.path": "model"},
    ("method", "weighted"): {"method.shares": "[1,1]"},
    ("loss", "weighted_sum"): {"loss.terms": f"[{TERM}]"},
    ("plan", "scheduled"): {"plan.plan": PAIRS, "plan.weights": "[{layer: 12, weight: 0.5}]"},
}
SIZE = {"num_layers": 12, "width": 768}


def compose(name, *overrides, folder=CONF, command="train"):
    """The settings; `package:` names are not looked up, a recipe composes without its extra."""
    kind = COMMANDS[command].settings
    ConfigStore.instance().store(name=f"{command}_schema", node=schema(kind))
    search = [f"hydra.searchpath=[file://{CONF}]"] if folder != CONF else []
    with hydra.initialize_config_dir(str(folder), version_base="1.3"):
        config = hydra.compose(name, overrides=[*overrides, *search])
    text = OmegaConf.to_yaml(config)
    return settings_of(kind, OmegaConf.create(text.replace("package:", "installed/")))


def build_parts(settings, folder):
    """Everything a run builds but the encoder, whose size is given by the plan's own pairs."""
    size = size_for(settings)
    machine = replace(settings.trainer, accelerator="cpu", devices=1)  # the tests' machine, not the recipe's
    return {
        "plan": settings.plan.build(seed=0, **size),
        "loss": settings.loss.build(),
        "distill": built(settings.distill, width=size["width"], guide_width=384),
        "optim": settings.optim.build(),
        "data": DataModule(settings.data, seed=0, collate=None),
        "trainer": make_trainer(machine, folder=folder),
    }


def size_for(settings):
    """The last pair of a fixed plan is the full model; other plans fit a BERT base."""
    pairs = settings.plan.settings.get("pairs")
    return {"num_layers": pairs[-1][0], "width": pairs[-1][1]} if pairs else SIZE


def test_there_is_a_recipe():
    assert RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_composes_and_builds(name, tmp_path):
    settings = compose(name, folder=config_dir("recipes"))
    for _, staged in stages_of(settings):
        parts = build_parts(staged, tmp_path)
        assert parts["plan"](0)[-1].sub.layer == parts["plan"].sub_models[-1].layer
        assert isinstance(parts["data"], DataModule)
        assert callable(staged.step.build().step)
        Objective(parts["loss"], parts["distill"])
    full = parts["plan"].sub_models[-1]
    for layer, dim in settings.exports:
        assert 1 <= layer <= full.layer
        assert 1 <= dim <= full.dim
    assert settings.backbone.target == "embedtrain.model.folder.export.load_encoder"


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_how_to_run_it_on_what_and_where_it_comes_from(name):
    text = (config_dir("recipes") / f"{name}.yaml").read_text("utf-8")
    header = text.partition("\ndefaults:")[0]
    assert all(line.startswith("#") for line in header.splitlines()), "the header stands above `defaults`"
    for word in ("command", "hardware", "source"):
        assert re.search(rf"^# {word}\s+\S", header, re.MULTILINE), f"the header states no {word}"
    assert name in header, "the command names the recipe"


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=lambda part: part)
def test_an_option_composes_and_builds(group, option, tmp_path):
    must = MUST_GIVE.get((group, option), {})
    given = {
        "train": GIVEN | must,
        "mine": {"source": "rows.jsonl", "out": "x.jsonl", "teacher.path": "m"} | must,
        "merge": {"runs": "[a,b]"} | must,
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
            assert isinstance(part.build(hidden_size=768, num_layers=12), Pooling)
    elif group == "objective":
        part.build(loss=InfoNCE(), distill=None)
    else:
        part.build(seed=0, save_dir=tmp_path, guide_width=384, **SIZE)
