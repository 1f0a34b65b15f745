"""`trust_remote_code`: in every command, only where the command line says it, and in the record of a run."""

import ast
import shutil
from pathlib import Path

import pytest
import yaml
from own_code import FILES, own_code_folder
from small_runs import StopAfter, StopError, command, train

import embedtrain
from embedtrain.settings.commands import TrainSettings
from embedtrain.settings.options import settings_from
from embedtrain.settings.places import config_dir
from embedtrain.types import InputError


@pytest.fixture(scope="module")
def own(tiny_bert, tmp_path_factory):
    return own_code_folder(tmp_path_factory.mktemp("own") / "model", tiny_bert, pre_norm=True)


@pytest.fixture
def words(small_run, own, tmp_path):
    rest = [word for word in small_run if not word.startswith("backbone.path")]
    return [*rest, f"backbone.path={own}", "name=r", f"output_root={tmp_path}", "trainer.max_steps=2"]


def test_every_command_runs_the_code_where_it_is_told_and_names_the_setting_where_not(
    words, small_data, tmp_path, error_of, capsys
):
    trust = "trust_remote_code=true"
    assert f"backbone.{trust}" in error_of("train", *words)
    with pytest.raises(SystemExit):
        command("doctor", *words)
    assert f"backbone.{trust}" in " ".join(capsys.readouterr().out.split())
    command("doctor", *words, f"backbone.{trust}")
    assert "written out and read again" in " ".join(capsys.readouterr().out.split())
    command("train", *words, f"backbone.{trust}", "exports=[[2,16]]")
    run = tmp_path / "r"
    record = yaml.safe_load((run / "config.yaml").read_text())
    assert record["config"]["backbone"]["trust_remote_code"] is True
    assert "code of the model" in record["identity"]
    for folder in (run / "model", run / "cut_L2_D16"):
        assert {path.name for path in folder.glob("*.py")} == FILES.keys()

    def every(place):
        root = f"data_root={small_data}"
        yield "evaluate", "", [f"model={place}", "tasks=[local]", root, f"output={tmp_path}/scores"]
        yield "export", "", [f"model={place}", f"out={tmp_path}/cut", "layer=2", "dim=8", "overwrite=true"]
        mined = [f"source={small_data}/train.jsonl", f"out={tmp_path}/m.jsonl", "selection=naive"]
        yield "mine", "teacher.", [*mined, f"teacher.path={place}", "overwrite=true"]
        yield "merge", "", [f"runs=[{place},{place}]", "name=m", f"output_root={tmp_path}", "base_share=0.5"]

    for name, group, given in every(run):
        assert f"{group}{trust}" in error_of(name, *given), name
        command(name, *given, f"{group}{trust}")
    with pytest.raises(InputError, match=trust):
        embedtrain.load(run)
    assert embedtrain.load(run, trust_remote_code=True).encode(["a cat"]).shape == (1, 32)
    cut = embedtrain.load(run / "cut_L2_D16", trust_remote_code=True)
    assert cut.encode(["a cat"]).shape == (1, 16)


PLACES = {
    "backbone": {"backbone": {"trust_remote_code": True}},
    "a text": {"backbone": {"trust_remote_code": "yes"}},
    "an interpolation": {"backbone": {"trust_remote_code": "${overwrite}"}},
    "guide": {"guide": {"trust_remote_code": True}},
    "a stage": {"stages": [{"name": "a", "guide": {"trust_remote_code": True}}]},
    "a sweep": {"hydra": {"sweeper": {"params": {"backbone.trust_remote_code": "true"}}}},
}


@pytest.mark.parametrize("kind", PLACES)
def test_no_file_lets_code_run(kind, words, tmp_path, error_of, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = {"defaults": ["train", "_self_"], **PLACES[kind]}
    (tmp_path / "theirs.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    flags = ["--config-dir", tmp_path, "--config-name", "theirs"]
    flags = [*(["--multirun"] if kind == "a sweep" else []), *flags]
    search = f"hydra.searchpath=[file://{config_dir('conf')}]"
    message = error_of("train", *flags, search, *words)
    assert "trust_remote_code, which would run code in the folder of a model. Only you" in message
    assert not (tmp_path / "r").exists()


def test_an_option_of_a_folder_is_no_word_of_the_user(words, own, tmp_path, error_of):
    (tmp_path / "backbone").mkdir()
    option = {"_target_": "embedtrain.model.folder.export.load_encoder", "path": str(own)}
    text = yaml.safe_dump(option | {"trust_remote_code": True})
    (tmp_path / "backbone/theirs.yaml").write_text(text)
    given = ["--config-dir", tmp_path, "backbone=theirs", *words]
    assert "say backbone.trust_remote_code=true yourself" in error_of("train", *given)
    command("train", *given, "backbone.trust_remote_code=true")


def test_the_config_of_a_run_of_others_lets_no_code_run(words, own, tmp_path, error_of):
    command("train", *words, "backbone.trust_remote_code=true")
    theirs = yaml.safe_load((tmp_path / "r/config.yaml").read_text())["given"]
    (tmp_path / "mine").mkdir()
    recipe = {"defaults": ["train", "_self_"], **theirs}
    (tmp_path / "mine/theirs.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    search = f"hydra.searchpath=[file://{config_dir('conf')}]"
    flags = ["--config-dir", tmp_path / "mine", "--config-name", "theirs", search]
    message = error_of("train", *flags, "name=again")
    assert "say backbone.trust_remote_code=true yourself" in message


def test_a_recipe_in_python_is_no_word_of_the_user(monkeypatch, tmp_path):
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    (recipes / "theirs.yaml").write_text("defaults: [train]\nbackbone: {trust_remote_code: true}\n")
    monkeypatch.setattr(
        "embedtrain.settings.options.config_dir",
        lambda name: recipes if name == "recipes" else config_dir(name),
    )
    monkeypatch.setattr("embedtrain.settings.options.recipe_names", lambda: ["theirs"])
    keys = {"name": "x", "data": {"train": "x"}, "recipe": "theirs"}
    with pytest.raises(InputError, match=r"say backbone\.trust_remote_code=true yourself"):
        settings_from(TrainSettings, "train", keys)
    given = settings_from(TrainSettings, "train", {**keys, "backbone": {"trust_remote_code": True}})
    assert given.backbone.settings["trust_remote_code"] is True


def test_a_run_goes_on_only_with_the_code_that_it_began_with(words, own, tmp_path):
    theirs = shutil.copytree(own, tmp_path / "theirs")
    words = [*words, f"backbone.path={theirs}", "backbone.trust_remote_code=true"]
    with pytest.raises(StopError):
        train(words, StopAfter(1))
    with (theirs / "blocks_tiny.py").open("a") as file:
        file.write("TIMES = 2\n")
    with pytest.raises(InputError, match="code of the model"):
        train(words)


def test_no_loader_is_left_to_ask_on_the_terminal():
    """Without the argument transformers asks whether to run the code of a folder, and waits."""
    root = Path(embedtrain.__file__).parent
    calls = [
        (path, node)
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("Auto")
    ]
    assert len(calls) > 3
    silent = [
        f"{path}:{node.lineno}"
        for path, node in calls
        if ast.unparse(node.func).endswith(".from_pretrained")
        and "trust_remote_code" not in [keyword.arg for keyword in node.keywords]
    ]
    assert not silent
