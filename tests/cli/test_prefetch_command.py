"""`embedtrain-evaluate prefetch=true` and `offline=true`, from a command line to files and messages."""

import contextlib
import json
import os
import shutil

import datasets
import huggingface_hub
import pytest
from datasets import Dataset
from small_runs import command, read_rows

from embedtrain.cli.offline import go_offline

STS = "mteb/stsbenchmark-sts"
MODEL = "someone/tiny"


@pytest.fixture
def hub(tmp_path, tiny_bert, monkeypatch):
    """A hub with one data set and one model; the environment and the libraries' switches are restored."""
    hub = tmp_path / "hub"
    (hub / STS).mkdir(parents=True)
    rows = [{"sentence1": f"cat {n}", "sentence2": f"dog {n % 3}", "score": n % 6} for n in range(12)]
    Dataset.from_list(rows).to_parquet(hub / STS / "test.parquet")
    shutil.copytree(tiny_bert, hub / MODEL)

    def snapshot_download(repo, *, local_dir=None, local_files_only=False, **_):
        if local_dir is None or not (hub / repo).is_dir():
            raise huggingface_hub.errors.LocalEntryNotFoundError(f"no {repo}")
        shutil.copytree(hub / repo, local_dir, dirs_exist_ok=True)
        return str(local_dir)

    def model_info(repo):
        if not (hub / repo).is_dir():
            raise ConnectionError("no route")
        files = [huggingface_hub.hf_api.RepoSibling(path.name) for path in (hub / repo).iterdir()]
        return type("Info", (), {"sha": "abc", "siblings": files})()

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr("embedtrain.model.locate.snapshot_download", snapshot_download)
    monkeypatch.setattr(huggingface_hub, "model_info", model_info)
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "0")
    for module in (huggingface_hub.constants, datasets.config):
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    return hub


@pytest.fixture
def say(capsys):
    """What `embedtrain-evaluate` prints, and the error it leaves with ('' for none)."""

    def run(*words):
        with contextlib.suppress(SystemExit):
            command("evaluate", *words)
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return shown.out, shown.err.partition("error: ")[2]

    return run


def test_data_and_model_are_fetched_and_then_evaluated_offline(hub, say, tmp_path):
    said, error = say("prefetch=true", "tasks=[STSBenchmark]", f"model={MODEL}", "data_root=mirror")
    assert error == ""
    assert f"[1/2] {STS}@b0fddb56ed78: 1 files" in said
    assert "2 of 2 repositories" in said
    manifest = json.loads((tmp_path / "mirror/manifest.json").read_text())
    assert {(entry["repo"], entry["kind"], entry["revision"]) for entry in manifest["repos"]} == {
        (STS, "dataset", "b0fddb56ed78048fa8b90373c8a3cfc37b684831"),
        (MODEL, "model", "abc"),
    }
    shutil.rmtree(hub)
    words = ["tasks=[STSBenchmark]", f"model={MODEL}", "data_root=mirror", "output=out"]
    said, error = say("offline=true", "verify=true", *words)
    assert error == ""
    lines = read_rows(tmp_path / "out/scores.jsonl")
    assert {(line["task"], line["split"]) for line in lines} == {("STSBenchmark", "test")}
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert huggingface_hub.constants.HF_HUB_OFFLINE
    assert datasets.config.HF_HUB_OFFLINE


def test_offline_says_all_that_is_missing_before_anything_is_encoded(hub, say, tmp_path):
    _, error = say("offline=true", "tasks=[STSBenchmark,smoke]", f"model={MODEL}", "output=out")
    assert f"no model folder {MODEL}" in error
    assert f"`prefetch=true model={MODEL}` fetches a hub model" in error
    assert f"1 of 29 tasks have no data here: STSBenchmark ({STS}@" in error
    assert "embedtrain-evaluate prefetch=true 'tasks=[STSBenchmark]' data_root=DIR" in error
    assert not (tmp_path / "out").exists()


def test_what_a_prefetch_could_not_have_is_the_last_it_says(hub, say):
    said, error = say("prefetch=true", "tasks=[STS12,STSBenchmark]", "data_root=mirror")
    assert "1 of 2 repositories" in said
    assert error.startswith("1 of 2 repositories could not be fetched; the same command tries them again:")
    assert "mteb/sts12-sts: LocalEntryNotFoundError: no mteb/sts12-sts" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prefetch=true", "tasks=[STSBenchmark]"], "prefetch=true needs data_root=DIR"),
        (["tasks=[STSBenchmark]"], "model must be given, e.g. model=runs/mine"),
        (["prefetch=true", "tasks=[STSBenchmark]", "data_root=mirror", "model=no/such"],
         "model=no/such is neither a folder here nor to be had from the hub (ConnectionError: no route)"),
        (["prefetch=true", "tasks=[STSBenchmrk]", "data_root=mirror"],
         "no task 'STSBenchmrk'; nearest: STSB"),
    ],
)  # fmt: skip
def test_words_that_do_not_fit_are_said(hub, say, words, message):
    assert message in say(*words)[1]


def test_going_offline_reaches_libraries_that_are_loaded_already(hub):
    go_offline()
    assert huggingface_hub.constants.HF_HUB_OFFLINE
    assert datasets.config.HF_HUB_OFFLINE
