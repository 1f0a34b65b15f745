"""`store=FOLDER` of embedtrain-evaluate: refused at the start when it is no folder; what it gave is said."""

import pytest
from small_runs import command

from embedtrain.run.cost import keeping_of
from embedtrain.settings.commands import EvaluateSettings
from embedtrain.types import InputError


def settings(store):
    return EvaluateSettings(tasks=["local"], store=str(store))


def test_a_store_that_cannot_be_a_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"store=.*/file: this must be a folder, not a file\. Say another"):
        keeping_of(settings(tmp_path / "file"), tmp_path)
    with pytest.raises(InputError, match=r"not a file \(.*/file is one\)"):
        keeping_of(settings(tmp_path / "file/vectors"), tmp_path)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="must be a folder"):
        keeping_of(settings(tmp_path / "dangling"), tmp_path)
    assert keeping_of(settings(tmp_path / "new/folder"), tmp_path).folder == tmp_path / "new/folder"
    assert keeping_of(settings("none"), tmp_path).folder is None


@pytest.fixture
def run(tmp_path, tiny_bert, small_data):
    def call(*words):
        given = [f"model={tiny_bert}", "tasks=[find]", f"data_root={small_data}", "scoring_workers=1", *words]
        command("evaluate", *given)

    return call


def test_a_file_is_refused_before_any_task(run, tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as left:
        run(f"store={tmp_path}/file", f"output={tmp_path}/out")
    assert left.value.code == 1
    shown = capsys.readouterr().err
    assert f"error: store={tmp_path}/file: this must be a folder" in shown
    assert not (tmp_path / "out").exists()


def test_what_the_store_gave_is_said(run, tmp_path, capsys):
    for output in ("first", "second"):
        run(f"store={tmp_path}/vectors", f"output={tmp_path}/{output}")
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("find: ")]
    assert [line.rpartition(", in ")[0] for line in said] == [
        "find: 1/1, 32 texts encoded",
        "find: 1/1, 32 found in the store",
    ]
