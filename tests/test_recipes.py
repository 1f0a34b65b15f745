"""Every recipe and every option of conf/ composes and builds, so that none rots unnoticed."""

import re

import hydra
import pytest
import torch
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from embedtrain.cli.launch import NODES, SCHEMAS
from embedtrain.data.module import DataModule
from embedtrain.model.pooling import Pooling
from embedtrain.objective.losses.contrastive import InfoNCE
from embedtrain.objective.matryoshka import Objective
from embedtrain.settings.build import build, config_dir, plain, schema
from embedtrain.settings.schemas import RunConfig
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
    ("loss", "weighted_sum"): {"loss.terms": f"[{TERM}]"},
    ("plan", "scheduled"): {"plan.plan": PAIRS, "plan.weights": "[{layer: 12, weight: 0.5}]"},
}
SIZE = {"num_layers": 12, "width": 768}


@pytest.fixture(autouse=True)
def schemas():
    for name, config_class in SCHEMAS.items():
        ConfigStore.instance().store(name=NODES[name], node=schema(config_class))


def compose(name, *overrides, folder=CONF):
    """The plain config; `package:` names are not looked up, a recipe composes without its extra."""
    search = [f"hydra.searchpath=[file://{CONF}]"] if folder != CONF else []
    with hydra.initialize_config_dir(str(folder), version_base="1.3"):
        config = hydra.compose(name, overrides=[*overrides, *search])
    text = OmegaConf.to_yaml(config)
    return plain(OmegaConf.create(text.replace("package:", "installed/")))


def build_parts(config, folder):
    """Everything a run builds but the encoder, whose size is given by the plan's own pairs."""
    parts = {"plan": build(config["plan"], "plan", seed=0, **size_for(config))}
    parts["loss"] = build(config["loss"], "loss")
    widths = {"width": size_for(config)["width"], "guide_width": 384}
    parts["distill"] = build(config["distill"], "distill", **widths) if config["distill"] else None
    parts["optim"] = build(config["optim"], "optim")
    parts["data"] = build(config["data"], "data", seed=0, collate=None)
    trainer = {
        **config["trainer"],
        "accelerator": "cpu",
        "devices": 1,
    }  # the tests' machine, not the recipe's
    parts["trainer"] = build(trainer, "trainer", folder=folder, loggers=[])
    return parts


def size_for(config):
    """The last pair of a fixed plan is the full model; other plans fit a BERT base."""
    pairs = config["plan"].get("pairs")
    return {"num_layers": pairs[-1][0], "width": pairs[-1][1]} if pairs else SIZE


def test_there_is_a_recipe():
    assert RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_composes_and_builds(name, tmp_path):
    config = compose(name, folder=config_dir("recipes"))
    parts = build_parts(config, tmp_path)
    assert parts["plan"](0)[-1].sub.layer == parts["plan"].sub_models[-1].layer
    assert isinstance(parts["data"], DataModule)
    Objective(parts["loss"], parts["distill"])
    full = parts["plan"].sub_models[-1]
    for layer, dim in config["exports"]:
        assert 1 <= layer <= full.layer
        assert 1 <= dim <= full.dim
    assert config["backbone"]["_target_"] == "embedtrain.model.folder.export.load_encoder"


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
    }
    command = "train" if group in RunConfig.__dataclass_fields__ else "mine"
    config = compose(
        command, f"{group}={option}", *(f"{key}={value}" for key, value in given[command].items())
    )
    node = config[group]
    if not node:
        assert option in ("none", "own", "files"), "only an option that chooses nothing may be empty"
    elif group in ("backbone", "guide", "teacher"):
        with pytest.raises(InputError, match=rf"{group}\.pathh: load_\w+ has no setting"):
            build({**node, "pathh": 1}, group)  # loading needs the model; its settings are checked before
    elif group == "trainer":
        build({**node, "accelerator": "cpu", "devices": 1}, group, folder=tmp_path)
    elif group == "pooling":
        with torch.device("meta"):  # the 7B sizes would fill the memory
            assert isinstance(build(node, group, hidden_size=768, num_layers=12), Pooling)
    elif group == "objective":
        build(node, group, loss=InfoNCE(), distill=None)
    else:
        build(node, group, seed=0, collate=None, save_dir=tmp_path, guide_width=384, **SIZE)
