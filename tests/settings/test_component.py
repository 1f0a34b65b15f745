"""Components: what a config may name, what is built, and what is said of one that is wrong."""

from dataclasses import dataclass, field

import pytest

from embedtrain.objective.losses.contrastive import InfoNCE
from embedtrain.objective.plan import FixedPairs
from embedtrain.settings import component as module
from embedtrain.settings.component import Component
from embedtrain.training.optim import AdamW
from embedtrain.types import InputError, SubModel

ADAMW = "embedtrain.training.optim.AdamW"
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
    monkeypatch.setattr(module, "Part", Part, raising=False)
    monkeypatch.setattr(Part, "__module__", "embedtrain.settings.component")
    return "embedtrain.settings.component.Part"


def build(node, where, **extra):
    return Component.of(node, where).build(**extra)


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
    "name", ["embedtrain.files.run_folder.subprocess.run", "embedtrain.settings.places.Path"]
)
def test_refuses_what_an_allowed_module_only_imported(name):
    with pytest.raises(InputError, match=r"(is defined in '.*', which is not allowed|does not exist)"):
        build({"_target_": name}, "optim")


def test_refuses_a_module():
    with pytest.raises(InputError, match="which is not allowed"):
        build({"_target_": "embedtrain.training.optim"}, "optim")


@pytest.mark.parametrize("name", [f"{ADAMW}W", "embedtrain.training.optims.AdamW"])
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


def test_effective_has_every_default_and_nothing_that_the_run_gives(part):
    node = {"_target_": part, "others": [{"_target_": ADAMW, "lr": 1.0}], "inner": {"a": (1, 2)}}
    shown = Component.of(node, "logger").effective()
    assert shown["others"][0] == {"_target_": ADAMW} | AdamW(lr=1.0).__dict__ | {"betas": [0.9, 0.999]}
    assert (shown["inner"], shown["size"]) == ({"a": [1, 2]}, 0)
    plan = Component(PAIRS, {"pairs": [[1, 2]]}, "plan").effective()
    assert plan["pairs"] == [[1, 2]]
    assert not plan.keys() & {"num_layers", "width"}


def test_changed_and_mapped_leave_the_rest():
    component = Component(ADAMW, {"lr": 1.0}, "optim")
    assert component.changed(eps=0.1).given() == {"_target_": ADAMW, "lr": 1.0, "eps": 0.1}
    assert component.mapped(lr=lambda value: value / 2, eps=abs).settings == {"lr": 0.5}
