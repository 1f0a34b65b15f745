"""embedtrain-report: from words to a page, or one line that says what is wrong."""

import json
import re
import shutil
import sys

import numpy as np
import pytest
from report_runs import write_report_run
from scored_runs import FULL, HALF, write_run
from small_runs import command

import embedtrain
from embedtrain.cli.report import as_settings
from embedtrain.types import InputError


@pytest.fixture
def folder(tmp_path):
    return write_report_run(tmp_path / "mine", tasks=2)


def data_of(page):
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1]
    )


def test_folders_are_runs_and_serve_is_a_setting(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "optim.lr=1e-4").mkdir()
    words = as_settings(["runs/a", "optim.lr=1e-4", "it's", "output=x", "--serve", "show=true"])
    assert words == ["runs=['runs/a','optim.lr=1e-4',\"it's\"]", "output=x", "serve=true", "show=true"]
    assert as_settings(["--help"]) == ["--help"]
    assert as_settings(["runs=[a]"]) == ["runs=[a]"]


def test_a_page_is_written_whole_and_again(plotly, folder, tmp_path, capsys):
    second = shutil.copytree(folder, tmp_path / "lr=1e-4, 'two' ü")
    for _ in range(2):
        command("report", folder, second, f"output={tmp_path}/out")
        assert capsys.readouterr().out == f"report: {tmp_path}/out/report.html\n"
    page = (tmp_path / "out/report.html").read_text("utf-8")
    assert [run["name"] for run in data_of(page)["runs"]] == ["mine", second.name]
    assert not re.search(r'(src|href)="(?!#|data:)', page[: page.index("<script>")])


def test_the_function_gives_the_file_whatever_was_imported_before(plotly, folder, tmp_path):
    assert embedtrain.report(folder, output=tmp_path / "out") == tmp_path / "out/report.html"
    assert "embedtrain.reporting.page" in sys.modules
    assert embedtrain.report([embedtrain.Run(folder)], output=tmp_path / "out").is_file()
    with pytest.raises(InputError, match="use the command"):
        embedtrain.report(folder, serve=True)


def test_what_cannot_be_read_is_named(plotly, folder, tmp_path, capsys):
    (folder / "health.jsonl").write_text("{\n")
    command("report", folder, f"output={tmp_path}/out")
    assert capsys.readouterr().out.startswith("mine: health.jsonl:1 cannot be read")


def test_a_folder_that_is_not_there_is_an_error_with_the_nearest(folder, tmp_path, error_of):
    assert f"did you mean '{folder}'?" in error_of("report", tmp_path / "mien")


def test_without_plotly_the_extra_is_named(folder, tmp_path, error_of, monkeypatch):
    monkeypatch.setattr("embedtrain.reporting.page.html.find_spec", lambda _: None)
    assert "pip install 'embedtrain[report]'" in error_of("report", folder, f"output={tmp_path}/out")
    assert not (tmp_path / "out").exists()


def test_runs_with_items_are_tested_against_the_first(plotly, tmp_path):
    quality = {FULL: 0.0, HALF: -0.1}
    for name, more, noise in (("one", 0.0, 0), ("same", 0.0, 0), ("better", 0.1, 1)):
        write_run(tmp_path / name, {cell: value + more for cell, value in quality.items()}, seed=noise)
    command("report", *(tmp_path / name for name in ("one", "same", "better")), f"output={tmp_path}/out")
    runs = data_of((tmp_path / "out/report.html").read_text("utf-8"))["runs"]
    verdicts = [{row["verdict"] for row in run["tests"]} for run in runs]
    assert verdicts == [{"not distinguishable", "better"}, {"not distinguishable"}, {"better"}]
    row = runs[2]["tests"][0]
    assert (row["what"], row["cell"]) == ("one → better", "L6 · D384")
    assert row["low"] < row["second"] - row["first"] < row["high"]
    assert np.isclose(row["second"] - row["first"], 0.1, atol=0.01)
