from pathlib import Path

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from embedtrain.model import locate as module
from embedtrain.model.locate import locate
from embedtrain.types import InputError


def test_a_folder_is_itself(tmp_path):
    assert locate(tmp_path) == tmp_path
    assert locate(str(tmp_path)) == tmp_path


def test_a_missing_folder_gets_the_nearest_name(tmp_path):
    (tmp_path / "my_model").mkdir()
    with pytest.raises(
        InputError, match=r"no model folder .*my_modle \(nearest: .*/my_model\): give a folder"
    ):
        locate(tmp_path / "my_modle")
    with pytest.raises(InputError, match=r"no model folder .*/zzz: give a folder or a hub name"):
        locate(tmp_path / "zzz")
    with pytest.raises(InputError, match=r"gone does not exist either"):
        locate(str(tmp_path / "gone" / "model"))


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "model.safetensors").write_text("")
    with pytest.raises(InputError, match=r"model\.safetensors is a file: give the folder"):
        locate(tmp_path / "model.safetensors")


def test_the_hub_offline_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "minilm-small").mkdir()
    with pytest.raises(InputError, match=r"fetch it first with `hf download someone/never-heard-of`"):
        locate("someone/never-heard-of")
    with pytest.raises(
        InputError, match=r"no model folder minilm-smal \(nearest: minilm-small\), and the hub"
    ):
        locate("minilm-smal")


def test_a_path_below_a_local_folder_is_not_asked_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "first").mkdir(parents=True)
    with pytest.raises(InputError, match=r"no model folder runs/frist \(nearest: runs/first\): give"):
        locate("runs/frist")


def test_the_hub_is_asked_for_safetensors_first(tmp_path, monkeypatch):
    asked: list[list[str]] = []

    def fetch(name: str, *, allow_patterns: list[str]) -> str:
        assert name == "owner/model"
        asked.append(allow_patterns)
        if "*.safetensors" in allow_patterns and len(asked) > 2:
            (tmp_path / "model.safetensors").write_text("")
        return str(tmp_path)

    monkeypatch.setattr(module, "snapshot_download", fetch)
    monkeypatch.chdir(tmp_path)
    assert locate("owner/model") == Path(tmp_path)
    assert ["*.safetensors" in patterns for patterns in asked] == [True, False]
    assert locate("owner/model") == Path(tmp_path)
    assert ["*.safetensors" in patterns for patterns in asked] == [True, False, True]


def test_a_hub_error_keeps_its_first_line(monkeypatch, tmp_path):
    def refuse(_name: str, **_settings: object) -> str:
        raise LocalEntryNotFoundError("no cache here\nand a long story")

    monkeypatch.setattr(module, "snapshot_download", refuse)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"\(LocalEntryNotFoundError: no cache here\)"):
        locate("owner/model")
