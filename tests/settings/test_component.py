"""Components: what a config may name, what is built, and what is said of one that is wrong."""

from dataclasses import dataclass, field

import pytest
import yaml

from embedtrain.objective.plan import FixedPairs
from embedtrain.settings import allowed
from embedtrain.settings import component as module
from embedtrain.settings.component import Component
from embedtrain.settings.places import config_dir
from embedtrain.settings.signatures import signature_of
from embedtrain.training.optim import AdamW
from embedtrain.types import InputError, SubModel

PART = "embedtrain.settings.component.Part"
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
    """A dotted name of `Part` that the list of `logger` takes."""
    parts_of, check = allowed.parts_of, allowed.check_target
    monkeypatch.setattr(allowed, "parts_of", lambda group: parts_of(group) | {PART, ADAMW})
    monkeypatch.setattr(module, "check_target", lambda target, where: check(target, where.partition(".")[0]))
    monkeypatch.setattr(module, "Part", Part, raising=False)
    monkeypatch.setattr(Part, "__module__", "embedtrain.settings.component")
    return PART


def build(node, where, **extra):
    return Component.of(node, where).build(**extra)


def test_builds_what_the_node_names():
    built = build({"_target_": ADAMW, "lr": 0.5}, "optim")
    assert isinstance(built, AdamW)
    assert built.lr == 0.5
    assert built.eps == AdamW().eps


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "subprocess.Popen", "embedtrainer.Thing"])
def test_refuses_what_is_not_on_the_list(name):
    with pytest.raises(InputError, match=rf"optim\._target_ '{name}' is not allowed"):
        build({"_target_": name}, "optim")


@pytest.mark.parametrize(
    "name",
    [
        "embedtrain.training.optim",  # a module
        "embedtrain.training.optim.LambdaLR",  # what a module of the list only imports
        "embedtrain.training.optim.torch.optim.Adam",
        "embedtrain.training.optim.math.exp",
        "embedtrain.files.run_folder.RunFolder",
        "embedtrain.objective.plan.Full",  # of another group
        "embedtrain.run.train.train",
        "torch.optim.SGD",
        "pytorch_lightning.cli.instantiate_class",
        "pytorch_lightning.loggers.CSVLogger",
        "embedtrain.training.optims.AdamW",
        "",
    ],
)
def test_refuses_all_that_is_no_class_of_the_group(name):
    with pytest.raises(InputError, match=rf"^optim\._target_ '{name}' is not allowed.*AdamW"):
        build({"_target_": name}, "optim")


CODE = {"_target_": "pytorch_lightning.cli.instantiate_class", "args": [], "init": {"class_path": "os.abort"}}


@pytest.mark.parametrize("group", sorted(path.name for path in config_dir("conf").iterdir() if path.is_dir()))
@pytest.mark.parametrize("hide", [lambda it: it, lambda it: [it], lambda it: {"a": [{"b": it}]}])
def test_no_part_of_any_group_runs_the_code_of_others(group, hide, monkeypatch):
    monkeypatch.setattr("os.abort", lambda: pytest.fail("it ran"))
    monkeypatch.setattr("importlib.import_module", lambda name: pytest.fail(f"imported {name}"))
    for chosen in sorted(allowed.parts_of(group)) or [CODE["_target_"]]:
        component = Component.of({"_target_": chosen, "part": hide(CODE)}, group)
        with pytest.raises(InputError, match=r"(instantiate_class' is not allowed|has no setting 'part')"):
            component.check()


@pytest.mark.parametrize(
    "name",
    ["embedtrain.objective.schedule.Cosine", "embedtrain.rules.TopK", "embedtrain.objective.plan.Full"],
)
def test_parts_inside_a_part_are_classes_of_objectives_and_rules(name):
    allowed.check_target(name, "loss.temperature")
    with pytest.raises(InputError, match="is not allowed"):
        allowed.check_target(name, "optim")


def test_every_option_of_conf_is_on_its_list():
    for file in config_dir("conf").glob("*/*.yaml"):
        node = yaml.safe_load(file.read_text("utf-8")) or {}
        if "_target_" in node:
            Component.of(node, file.parent.name).check()


def test_takes_classes_of_a_package_with_an_entry_point(monkeypatch, tmp_path):
    (tmp_path / "my_losses.py").write_text("class Mine:\n    def __init__(self, size=1): self.size = size\n")
    about = tmp_path / "mine-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[embedtrain.components]\nmine = my_losses\n")
    with pytest.raises(InputError, match=r"entry point in embedtrain\.components"):
        build({"_target_": "my_losses.Mine"}, "loss")
    monkeypatch.syspath_prepend(tmp_path)
    allowed._offers.cache_clear()
    try:
        assert build({"_target_": "my_losses.Mine", "size": 3}, "loss").size == 3
        with pytest.raises(InputError, match=r"'my_losses\.Mina' does not exist"):
            build({"_target_": "my_losses.Mina"}, "loss")
        with pytest.raises(
            InputError, match=r"loss\.sice: .* has no setting 'sice'; did you mean 'loss.size'"
        ):
            build({"_target_": "my_losses.Mine", "sice": 3}, "loss")
    finally:
        allowed._offers.cache_clear()


REFUSED = [
    ("plan", {"dims": [1]}, r"plan needs a `_target_`; choose one by plan=NAME from conf/plan/"),
    ("plan", {"_target_": PAIRS, "num_layers": 3}, r"plan\.num_layers is set by the run itself; remove it"),
    ("optim", {"_target_": ADAMW, "wamup": 1}, r"AdamW has no setting 'wamup'; .*'optim.warmup'\?"),
    ("optim", {"_target_": ADAMW, "zzz": 1},
     r"It has: lr, weight_decay, betas, eps, warmup, schedule, final_lr"),
    ("optim", {"_target_": ADAMW, "lr": -1}, r"^optim: lr must be above 0, got -1"),
    ("optim", {"_target_": ADAMW, "lr": "fast"}, r"^optim\.lr must be a number, got 'fast'"),
    ("optim", {"_target_": ADAMW, "lr": True}, r"^optim\.lr must be a number, got True"),
    ("optim", {"_target_": ADAMW, "betas": 3}, r"^optim\.betas must be a list, got 3"),
    ("optim", {"_target_": ADAMW, "betas": "abc"}, r"^optim\.betas must be a list, got 'abc'"),
    ("plan", {"_target_": PAIRS, "pairs": [[1, "x"]]},
     r"^plan\.pairs must be a list of lists of numbers"),
    ("logger", {"_target_": PART, "size": "x"}, r"^logger\.size must be a number, got 'x'"),
    ("backbone", {"_target_": "embedtrain.model.folder.export.load_encoder"},
     r"backbone\.path must be given: load_encoder needs it"),
    ("loss", {"_target_": "embedtrain.objective.losses.contrastive.InfoNCE", "temperature": 0},
     "^loss: temperature"),
    ("logger", {"_target_": PART, "others": [1, {"_target_": ADAMW, "lrr": 1}]},
     r"^logger\.others\[1\]\.lrr: AdamW has no setting 'lrr'"),
]  # fmt: skip


@pytest.mark.usefixtures("part")
@pytest.mark.parametrize(("group", "node", "message"), REFUSED)
def test_what_cannot_be_built_is_refused_with_its_place(group, node, message):
    with pytest.raises(InputError, match=message):
        build(node, group, num_layers=2, width=8)


def numbers_and_lists():
    """Every setting of every option whose default is a number, true or false, or a list of numbers."""
    for file in sorted(config_dir("conf").glob("*/*.yaml")):
        node = yaml.safe_load(file.read_text("utf-8"))
        if not isinstance(node, dict) or not str(node.get("_target_")).startswith("embedtrain."):
            continue
        target = Component(node["_target_"], {}, file.parent.name).resolve()
        for key, default in signature_of(target).defaults.items():
            if isinstance(default, bool | int | float | tuple) and default != ():
                yield file.parent.name, node["_target_"], key, default


def test_a_word_where_a_number_or_a_list_belongs_is_named_by_every_option():
    seen = 0
    for group, target, key, default in numbers_and_lists():
        kind = {bool: "true or false", tuple: "a list"}.get(type(default), "a number")
        one = Component(target, {key: "abc"}, group)
        with pytest.raises(InputError, match=rf"^{group}\.{key} must be {kind}, got 'abc'"):
            one._check_kinds(one.resolve())
        seen += 1
    assert seen > 100


def test_the_run_gives_what_the_target_takes():
    built = build({"_target_": PAIRS, "pairs": [[1, 4], [2, 8]]}, "plan", num_layers=2, width=8, seed=3)
    assert isinstance(built, FixedPairs)  # which takes no seed
    assert built.sub_models == (SubModel(1, 4), SubModel(2, 8))


def test_nested_nodes_are_built_first(part):
    built = build(
        {"_target_": part, "inner": {"_target_": ADAMW}, "others": [{"_target_": part}, 7]}, "logger", size=3
    )
    assert isinstance(built.inner, AdamW)
    assert built.others == [Part(size=3), 7]  # what the run knows reaches nested nodes too
    assert built.size == 3


def test_a_plain_mapping_is_handed_over_as_it_is(part):
    assert build({"_target_": part, "inner": {"a": [1]}}, "logger").inner == {"a": [1]}


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
