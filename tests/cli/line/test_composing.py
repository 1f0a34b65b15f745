"""Folders of one's own, and sweeps whose mistakes are answered before the first job."""

import os
import re
import subprocess
import sys

import pytest
import yaml
from small_runs import command

from embedtrain.cli.line.completion import recipes_for, with_own_folder


@pytest.fixture
def own(tmp_path, tiny_bert, monkeypatch):
    """A folder with an option `größe` of the group backbone, and a config of one's own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine/backbone").mkdir(parents=True)
    option = {
        "_target_": "embedtrain.model.folder.export.load_encoder",
        "path": str(tiny_bert),
    }
    for name in ("mine", "größe"):
        (tmp_path / f"mine/backbone/{name}.yaml").write_text(yaml.safe_dump(option))
    (tmp_path / "mine/whole.yaml").write_text(
        "defaults: [train, _self_]\nname: own\ndata: {train: y}\nhydra: {sweeper: {params: {seed: '1,2'}}}\n"
    )
    return tmp_path / "mine"


@pytest.fixture
def shown(capsys):
    """The settings that a command shows."""

    def run(*words):
        command("train", *words, "show=true")
        return yaml.safe_load(capsys.readouterr().out)

    return run


@pytest.mark.parametrize(
    "words",
    [
        ["name=r", "data.train=y"],
        ["recipe=quickstart_minilm"],
        ["--config-name", "whole"],
        ["name=r", "--run", "data.train=y"],
    ],
)
@pytest.mark.parametrize("name", ["mine", "größe"])
def test_an_option_of_ones_own_folder(own, shown, tiny_bert, words, name):
    found = shown("--config-dir", own, *words, f"backbone={name}")
    assert found["backbone"]["path"] == str(tiny_bert)


def test_a_mistyped_option_of_ones_own_is_answered_with_the_nearest(own, error_of):
    words = ["--config-dir", own, "name=r", "data.train=y"]
    assert "did you mean 'mine'?" in error_of("train", *words, "backbone=mien")
    assert "there is no such folder" in error_of("train", "--config-dir", "nowhere", "name=r")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sede=1,2"], "unknown config key 'sede'; did you mean 'seed'?"),
        (["loss=infonce,cosnet"], "loss=cosnet does not exist; did you mean 'cosent'?"),
        (["optim.lrr=1,2"], "AdamW has no setting 'lrr'; did you mean 'optim.lr'?"),
        (["seed=1,x"], "seed must be a whole number"),
        (["data.batch_size=8,0"], "batch_size must be 1 or more, got 0"),
        (["seed=1,2"], "jobs 0 and 1 of the sweep would both write runs/x. Put what differs into the name: "),
        (["seed=1,2"], "'name=x_${seed}'"),
        (["loss=infonce,cosent"], "'name=x_${hydra:runtime.choices.loss}'"),
        (["name=x_${seed}", "seed=1,2", "optim.lr=1,2"], "'name=x_${seed}_${optim.lr}'"),
        (["name=a,b", "seed=range(0,3)"], "would both write runs/a"),
        (["hydra.mode=MULTIRUN", "seed=1,2"], "would both write runs/x"),
    ],
)
def test_a_mistake_of_a_sweep_is_answered_before_its_first_job(error_of, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    assert said in error_of("train", "name=x", "data.train=y", "--multirun", *words)
    assert list(tmp_path.iterdir()) == []


def test_jobs_of_a_sweep_that_a_config_describes(own, error_of):
    words = ["--config-dir", own, "--config-name", "whole", "--multirun"]
    assert "jobs 0 and 1 of the sweep would both write runs/own" in error_of("train", *words)


@pytest.mark.parametrize("name", ["export", "mine"])
def test_other_commands_write_to_one_place_each_too(error_of, name):
    words = {"export": ["model=m", "layer=1,2"], "mine": ["source=y", "teacher=minilm", "seed=1,2"]}[name]
    said = error_of(name, *words, "out=small.jsonl", "--multirun")
    assert f"'out=small_${{{words[-1].partition('=')[0]}}}.jsonl'" in said


def test_a_comma_without_multirun_is_answered_with_all_spellings(error_of):
    said = error_of("train", "name=x", "data.train=a,b.jsonl")
    assert all(part in said for part in ("--multirun", "'data.train=\"a,b.jsonl\"'", "data.train=[...]"))


def test_a_sweep_names_no_folder_by_the_clock(own, tmp_path, capsys):
    words = ["name=x_${hydra:job.num}", "data.train=y", "--multirun", "seed=1,2", "show=true"]
    command("train", *words)
    assert re.findall(r"^name: (.*)$", capsys.readouterr().out, re.MULTILINE) == ["x_0", "x_1"]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["multirun"]
    assert [path.name for path in (tmp_path / "runs/multirun").iterdir()] == ["multirun.yaml"]


COMPLETE = """
complete_for() { COMP_LINE="$1"; COMP_POINT=${#1}; COMP_WORDS=($1); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
hydra_bash_completion; echo "${COMPREPLY[@]}"; }
eval "$(embedtrain-train -sc install=bash)"
complete_for "$1"
"""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("embedtrain-train loss=infonce_s", ["loss=infonce_symmetric"]),
        ("embedtrain-train recipe=quickstart_minilm plan=two", ["plan=two_dmse"]),
        ("embedtrain-train recipe=quick", ["recipe=quickstart_minilm"]),
        ("embedtrain-train --config-dir mine backbone=mine", ["backbone=mine"]),
    ],
)
def test_a_shell_completes(own, line, expected):
    script = own.parent / "bin/embedtrain-train"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m embedtrain.cli.train "$@"\n')
    script.chmod(0o755)
    environment = {**os.environ, "PATH": f"{script.parent}:{os.environ['PATH']}"}
    for name in [name for name in environment if name.startswith("COMP_")]:
        del environment[name]
    done = subprocess.run(
        ["bash", "-c", COMPLETE, "bash", line],
        cwd=own.parent,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.stdout.split() == expected, done.stderr


def test_only_what_a_shell_asks_is_completed():
    asked = {"COMP_LINE": "embedtrain-train recipe=q"}
    assert recipes_for(["name=x"], asked) is None
    assert recipes_for(["-sc", "query=bash"], {"COMP_LINE": "embedtrain-train loss=i"}) is None
    assert with_own_folder(["name=x"], asked) == (["name=x"], asked["COMP_LINE"])


WORDS = (
    *("data={}", "loss={}", "recipe={}", "teacher={}", "data.train={}", "output_root={}", "name={}", "{}=1"),
    *("+{}=1", "~{}", "{}", "--config-dir={}", "--config-path={}", "--config-name={}", "hydra/launcher={}"),
    *("hydra.run.dir={}", "hydra.sweep.dir={} --multirun", "runs={}", "output={}"),
)
OF_OTHERS = {"teacher": "mine", "runs": "report", "output": "report"}


@pytest.mark.parametrize(
    ("word", "value"),
    [*((word, "x" * 5000) for word in WORDS), ("data={}", "x/" * 2500), ("output_root={}", "x/" * 2500)]
    + [(word, "a\udc80b") for word in ("name={}", "data={}", "--config-dir={}")],
    ids=lambda text: ascii(text)[:20],
)
def test_a_name_that_no_file_can_have_is_one_line(word, value, error_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = OF_OTHERS.get(word.partition("=")[0], "train")
    rest = {"train": ["name=x", "data.train=y"], "mine": ["source=s", "out=o.jsonl"], "report": ["runs=[y]"]}
    words = [one for one in rest[name] if one.partition("=")[0] != word.partition("=")[0]]
    assert len(error_of(name, *words, *(part.format(value) for part in word.split()))) < 16_000
    assert [path.name for path in tmp_path.iterdir()] == []


@pytest.mark.parametrize("key", ["hydra.run.dir", "hydra.sweep.dir"])
def test_a_folder_of_hydra_that_cannot_be_made_is_named(key, error_of, tmp_path):
    (tmp_path / "file").write_text("")
    many = ["--multirun"] if "sweep" in key else []
    words = ["name=x", "data.train=y", "show=true", f"{key}={tmp_path}/file/below", *many]
    assert error_of("train", *words).startswith(f"error: {key}={tmp_path}/file/below: no folder can be made")


@pytest.mark.parametrize(
    ("name", "word", "key"), [("train", "+x=1", "x"), ("train", "+data.x=1", "data.x"), ("mine", "+x=1", "x")]
)
def test_a_key_that_is_added_and_that_nothing_reads_is_named(name, word, key, error_of):
    words = {"train": ["name=x", "data.train=y"], "mine": ["source=s", "out=o.jsonl", "teacher=minilm"]}
    assert f"unknown setting '{key}'" in error_of(name, *words[name], word)


def test_a_config_path_is_a_whole_path(error_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert f"must be a whole path: {tmp_path}/mine" in error_of("train", "--config-path", "mine", "name=x")
