"""What an evaluation costs, and where it keeps its vectors."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from small_runs import command

from embedtrain.evaluation.sweeping.cost import Cost
from embedtrain.evaluation.vectors.storage import Keeping
from embedtrain.run.cost import keeping_of, plan_table
from embedtrain.settings.commands import EvaluateSettings
from embedtrain.types import InputError


def settings(**changes):
    return EvaluateSettings(tasks=["local"], **changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Keeping(Path("out/vectors"), 20.0, 8.0, "float32")),
        ({"store": "none", "memory_gb": 0}, Keeping(None, 20.0, 0, "float32")),
        ({"store": "/shared/v", "store_dtype": "float16"}, Keeping(Path("/shared/v"), 20.0, 8.0, "float16")),
    ],
)
def test_keys_say_where_vectors_are(changes, expected):
    assert keeping_of(settings(**changes), Path("out")) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"store_dtype": "int8"}, "store_dtype must be one of float32, float16, got 'int8'"),
        ({"store_gb": -1}, "store_gb must be 0 or more, got -1"),
        ({"memory_gb": -0.5}, "memory_gb must be 0 or more, got -0.5"),
    ],
)
def test_other_values_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        keeping_of(settings(**changes), Path("out"))


def test_the_table_has_a_line_a_task_and_marks_estimates():
    console = Console(width=200, record=True, file=io.StringIO())
    exact = Cost("mine", 2_552, 36_689, True, 2**30, 1.5e12, 51.0, "memory")
    console.print(plan_table([exact, Cost("SciFact", 5_483, 10, False, 2**29, 5e11, 7_300.0, "streamed")]))
    text = console.export_text()
    for part in ("2,552", "~5,483", "1 GB", "0.5 GB", "51.0 s", "2 h 2 min", "streamed", "8,035", "1.5 GB"):
        assert part in text


def test_a_store_that_cannot_be_a_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"store=.*/file: this must be a folder, not a file\. Say another"):
        keeping_of(settings(store=f"{tmp_path}/file"), tmp_path)
    with pytest.raises(InputError, match=r"not a file \(.*/file is one\)"):
        keeping_of(settings(store=f"{tmp_path}/file/vectors"), tmp_path)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="must be a folder"):
        keeping_of(settings(store=f"{tmp_path}/dangling"), tmp_path)
    assert keeping_of(settings(store=f"{tmp_path}/new/folder"), tmp_path).folder == tmp_path / "new/folder"


@pytest.fixture
def run(tmp_path, tiny_bert, small_data):
    def call(*words):
        given = [f"model={tiny_bert}", "tasks=[find]", f"data_root={small_data}", "scoring_workers=1", *words]
        command("evaluate", *given)

    return call


def test_a_file_is_refused_before_any_task(run, tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit):
        run(f"store={tmp_path}/file", f"output={tmp_path}/out")
    assert f"error: store={tmp_path}/file: this must be a folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_the_store_gave_is_said(run, tmp_path, capsys):
    for output in ("first", "second"):
        run(f"store={tmp_path}/vectors", f"output={tmp_path}/{output}")
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("find: ")]
    assert [line.rpartition(", in ")[0] for line in said] == [
        "find: 1/1, 32 texts encoded",
        "find: 1/1, 32 texts found in the store",
    ]
