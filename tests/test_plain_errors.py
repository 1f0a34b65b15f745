"""Whatever a hurried person passes to a function or a setting: a result, or one InputError with its place."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

import embedtrain
from embedtrain.settings.commands import EvaluateSettings, TrainSettings
from embedtrain.settings.compose import effective
from embedtrain.settings.options import settings_from
from embedtrain.types import InputError

NO_FILE = "a\0b", "a\ud800b"
NO_PLACE = (*NO_FILE, "", None, 3, b"x", {}, [], object(), "~nobody-here", "x" * 300)


@pytest.fixture(scope="module")
def functions(tiny_bert, small_data, tmp_path_factory):
    """(function, argument) -> a call with one value for that argument."""
    out = tmp_path_factory.mktemp("out")
    rows, evaluated = small_data / "train.jsonl", {"tasks": ["find"], "data_root": small_data}
    mined = {"selection": {"per_row": 1, "depth": 4}}
    return {
        "load model": embedtrain.load,
        "export model": lambda value: embedtrain.export(value, out / "e"),
        "export out": lambda value: embedtrain.export(tiny_bert, value),
        "evaluate model": lambda value: embedtrain.evaluate(value, **evaluated),
        "evaluate output": lambda value: embedtrain.evaluate(tiny_bert, output=value, **evaluated),
        "evaluate data_root": lambda value: embedtrain.evaluate(
            tiny_bert, tasks=["find"], data_root=value, output=out / "d"
        ),
        "mine source": lambda value: embedtrain.mine(value, out / "m.jsonl", teacher={"path": tiny_bert}),
        "mine out": lambda value: embedtrain.mine(rows, value, teacher={"path": tiny_bert}, **mined),
        "mine teacher": lambda value: embedtrain.mine(rows, out / "t.jsonl", teacher={"path": value}),
        "compare runs": embedtrain.compare,
        "compare one": lambda value: embedtrain.compare([value]),
        "compare output": lambda value: embedtrain.compare(["nowhere"], output=value),
        "pairs source": lambda value: embedtrain.pairs(value, out / "p.jsonl"),
        "pairs out": lambda value: embedtrain.pairs(rows, value, columns={"text": "query"}),
        "pairs maker": lambda value: embedtrain.pairs(
            rows, out / "q.jsonl", columns={"text": "query"}, maker={"option": "generated", "path": value}
        ),
        "pairs check_with": lambda value: embedtrain.pairs(
            rows, out / "c.jsonl", columns={"text": "query"}, maker=WORDS, check_with=value
        ),
        "merge runs": embedtrain.merge,
        "merge one": lambda value: embedtrain.merge([tiny_bert, value], output_root=out / "m"),
        "merge output_root": lambda value: embedtrain.merge([tiny_bert, tiny_bert], output_root=value),
        "merge probe": lambda value: embedtrain.merge(
            [tiny_bert, tiny_bert], output_root=out / "m", method="greedy", probe=value
        ),
        "rotate model": lambda value: embedtrain.rotate(value, rows, out / "t"),
        "rotate data": lambda value: embedtrain.rotate(tiny_bert, value, out / "t"),
        "rotate one": lambda value: embedtrain.rotate(tiny_bert, [rows, value], out / "t"),
        "rotate out": lambda value: embedtrain.rotate(tiny_bert, rows, value),
        "report runs": lambda value: embedtrain.report(value, output=out / "r"),
    }


PLACES = [
    "load model", "export model", "export out", "evaluate model", "evaluate output", "evaluate data_root",
    "mine source", "mine out", "mine teacher", "compare runs", "compare one", "compare output", "report runs",
    "merge runs", "merge one", "merge output_root", "merge probe", "pairs source", "pairs out", "pairs maker",
    "pairs check_with", "rotate model", "rotate data", "rotate one", "rotate out",
]  # fmt: skip
WORDS = {"option": "representative_words", "common": 1.0}
MAY_BE_LEFT_OUT = {
    "pairs check_with": (None,),
    "evaluate output": (None, 3),
    "evaluate data_root": (None, 3),
    "compare output": (None,),
    "merge output_root": (None, 3),
}


@pytest.mark.parametrize("value", NO_PLACE, ids=lambda value: ascii(value)[:12])
@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_place_is_one_error(functions, place, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if value in MAY_BE_LEFT_OUT.get(place, ()):
        return
    with pytest.raises(InputError) as error:
        functions[place](value)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


@pytest.mark.parametrize("place", ["export out", "mine out", "rotate out", "evaluate output"])
@pytest.mark.parametrize("value", [".", "..", "/", Path(".")])
def test_a_folder_that_has_no_name_is_written_or_refused(functions, place, value, tmp_path, monkeypatch):
    """An evaluation goes where it is told, and nothing else is left there."""
    (tmp_path / "a/b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a/b")
    refused = place != "evaluate output" or value == "/"
    with pytest.raises(InputError) if refused else nullcontext():
        functions[place](value)
    assert refused != any((tmp_path / "a/b").iterdir()) or value == ".."
    assert sorted(path.name for path in tmp_path.glob(".*")) in ([], [".a.lock"])


@pytest.mark.parametrize(
    "call",
    [
        lambda: embedtrain.evaluate("x", model="y", tasks=["find"]),
        lambda: embedtrain.export("x", "y", out="z"),
        lambda: embedtrain.export("x"),
        lambda: embedtrain.mine("x", "y", source="z"),
        lambda: embedtrain.compare(["x"], runs=["y"]),
        lambda: embedtrain.load(),
        lambda: embedtrain.train("x"),
    ],
)
def test_arguments_that_do_not_fit_are_named(call):
    with pytest.raises(InputError, match=r"^(evaluate|export|mine|compare|load|train)\(.*argument"):
        call()


RUN = {"name": "x", "data": {"train": "rows.jsonl"}}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"stages": {"a": 1}}, "stages must be a list, e.g. "),
        ({"stages": "a"}, "stages must be a list, e.g. [a], got 'a'"),
        ({"exports": 3}, "exports must be a list"),
        ({"evaluation": {"tasks": "find"}}, "evaluation.tasks must be a list, e.g. [find], got 'find'"),
        ({"evaluation": {"layers": 2}}, "evaluation.layers must be a list, e.g. [2]"),
        ({"evaluation": {"layers": [[1]]}}, "evaluation: layers must be 1 or more, got [1]"),
        ({"stages": [{"name": "a", 3: 4}, {"name": "b"}]}, "stages[0]: a key must be a text, got 3"),
        ({"data": {None: 1}}, "data: a key must be a text, got None"),
        ({"name": "a\0b"}, r"name must be a text that files can have, got 'a\x00b'"),
        ({"name": "a\ud800"}, r"name must be a text that files can have, got 'a\ud800'"),
        ({"output_root": "~nobody-here"}, "no user has this name. A file or folder of it is ./~nobody-here"),
        ({"data": {"train": ["a", "b\0"]}}, "data.train[1] must be a text that files can have"),
        ({"optim": {"lr": float("inf")}}, "optim.lr must be a finite number, got inf"),
        ({"loss": {"temperature": float("nan")}}, "loss.temperature must be a finite number, got nan"),
        ({"trainer": {"val_check_interval": float("inf")}}, "trainer.val_check_interval must be a finite"),
        ({"data": Path("rows.jsonl")}, "data=rows.jsonl"),
        ({"data": ["rows.jsonl"]}, "data takes the name of an option or a mapping of settings"),
        ({"seed": object()}, "seed must be a whole number, e.g. 2, got 'object'"),
    ],
)
def test_a_setting_that_nobody_can_mean_is_named(keys, message):
    with pytest.raises(InputError) as error:
        settings_from(TrainSettings, "train", {**RUN, **keys})
    assert message in str(error.value), error.value
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"name": "a" * 300}, "stages[0]: a name has at most 60 letters, this one has 300"),
        ({"name": "a", "loss": {"option": "cosant"}}, "stages[0].loss=cosant does not exist; did you mean"),
    ],
)
def test_a_stage_that_cannot_be_is_named(functions, tiny_bert, stage, message, tmp_path):
    keys = {**RUN, "backbone": {"path": tiny_bert}, "output_root": tmp_path}
    with pytest.raises(InputError) as error:
        embedtrain.train(**keys, stages=[stage, {"name": "b"}])
    assert message in str(error.value), error.value


def test_an_option_inside_a_stage_is_the_option_of_the_group():
    from embedtrain.settings.stages import stages_of

    keys = {**RUN, "stages": [{"name": "a", "loss": {"option": "cosent", "temperature": 0.3}}, {"name": "b"}]}
    first, second = stages_of(settings_from(TrainSettings, "train", keys))
    alone = settings_from(TrainSettings, "train", {**RUN, "loss": {"option": "cosent", "temperature": 0.3}})
    assert effective(first.settings)["loss"] == effective(alone)["loss"]
    assert "InfoNCE" in second.settings.loss.target


SAME = [
    ({"seed": np.int64(3)}, {"seed": 3}),
    ({"overwrite": np.bool_(True)}, {"overwrite": True}),
    ({"name": np.str_("n")}, {"name": "n"}),
    ({"optim": {"lr": np.float32(0.5)}}, {"optim": {"lr": 0.5}}),
    ({"optim": {"lr": torch.tensor(0.5)}}, {"optim": {"lr": 0.5}}),
    ({"plan": {"pairs": np.array([[1, 8], [2, 16]])}}, {"plan": {"pairs": [[1, 8], [2, 16]]}}),
    ({"exports": ((np.int32(1), 8),)}, {"exports": [[1, 8]]}),
    ({"evaluation": {"layers": range(1, 3)}}, {"evaluation": {"layers": [1, 2]}}),
    ({"data": {"train": [Path("a"), Path("b")]}}, {"data": {"train": ["a", "b"]}}),
    (
        {"stages": [{"name": "a", "trainer": {"max_steps": np.int64(2)}}, {"name": "b"}]},
        {"stages": [{"name": "a", "trainer": {"max_steps": 2}}, {"name": "b"}]},
    ),
]


@pytest.mark.parametrize(("given", "plain"), SAME)
def test_values_of_numpy_torch_and_pathlib_are_those_of_python(given, plain):
    one, other = (
        effective(settings_from(TrainSettings, "train", {**RUN, **keys})) for keys in (given, plain)
    )
    assert one == other
    assert repr(one) == repr(other), "no type of a library is left"


def test_a_home_folder_is_written_out(monkeypatch, tmp_path):
    """As a shell does that knows `key=~/x`; others pass it on."""
    monkeypatch.setenv("HOME", str(tmp_path))
    made = settings_from(EvaluateSettings, "evaluate", {"tasks": ["a"], "model": "~/m", "output": "~/o"})
    assert (made.model, made.output) == (f"{tmp_path}/m", f"{tmp_path}/o")


def test_the_folder_of_a_run_is_no_backbone_and_says_which_is(tiny_bert, small_data, tmp_path):
    keys = {
        "data": {"train": small_data / "train.jsonl"},
        "trainer": {"max_steps": 1},
        "output_root": tmp_path,
    }
    run = embedtrain.train(name="x", backbone={"path": tiny_bert}, plan="full", **keys)
    with pytest.raises(InputError, match=f"is the folder of a run: give its model, {run.folder}/model"):
        embedtrain.train(name="y", backbone={"path": run.folder}, **keys)


@pytest.mark.parametrize("value", ["${x}", "${oc.env:MY_TOKEN}", "${oc.env:NOWHERE}", 10**400])
@pytest.mark.parametrize("key", ["name", "seed", "output_root", "overwrite", "final_weights"])
def test_what_cannot_be_resolved_or_counted_is_one_error(key, value, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "hunter2")
    if isinstance(value, int) and key != "seed":
        key, value = "optimized_metric", "${x}"
    with pytest.raises(InputError) as error:
        settings_from(TrainSettings, "train", {**RUN, key: value})
    assert "\n" not in str(error.value)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("number", ["store_gb", "memory_gb"])
def test_a_number_that_no_float_holds_is_one_error(number):
    with pytest.raises(InputError, match="too large"):
        settings_from(EvaluateSettings, "evaluate", {"tasks": ["a"], number: 10**400})
