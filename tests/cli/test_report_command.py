"""embedtrain-report: from words to a page, or one line that says what is wrong."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from processes import LIMIT
from report_runs import write_report_run
from scored_runs import FULL, HALF, write_run
from small_runs import command

import embedtrain
from embedtrain.cli.commands import COMMANDS
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
    assert not re.search(r'(src|href)="(?!#|data:)', page[: page.index('<script type="text/plain"')])


def test_the_function_gives_the_file_whatever_was_imported_before(plotly, folder, tmp_path):
    assert embedtrain.report(folder, output=tmp_path / "out") == tmp_path / "out/report.html"
    assert "embedtrain.reporting.page" in sys.modules
    assert embedtrain.report([embedtrain.Run(folder)], output=tmp_path / "out").is_file()
    with pytest.raises(InputError, match="use the command"):
        embedtrain.report(folder, serve=True)


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if not command.models])
def test_a_command_that_runs_no_model_does_not_import_torch(name, tmp_path):
    quality = {FULL: 0.0, HALF: -0.1}
    runs = ",".join(write_run(tmp_path / run, quality, seed=n) for n, run in enumerate(("one", "two")))
    words = ["x", f"runs=[{runs}]", f"output={tmp_path}/out"]
    code = f"import sys; sys.argv = {words}; from embedtrain.cli.{name} import main; main()"
    lines = [code, "print([name for name in ('torch', 'transformers') if name in sys.modules])"]
    made = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True, timeout=LIMIT
    )
    assert made.stdout.endswith("[]\n")


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


def test_every_pair_of_runs_with_items_is_tested(plotly, tmp_path):
    quality = {FULL: 0.0, HALF: -0.1}
    for name, more, noise in (("one", 0.0, 0), ("same", 0.0, 0), ("better", 0.1, 1)):
        write_run(tmp_path / name, {cell: value + more for cell, value in quality.items()}, seed=noise)
    command("report", *(tmp_path / name for name in ("one", "same", "better")), f"output={tmp_path}/out")
    data = data_of((tmp_path / "out/report.html").read_text("utf-8"))
    pairs = {(pair["first"], pair["second"]): pair for pair in data["pairs"]}
    said = {key: {row[-1] for row in pair["rows"]} for key, pair in pairs.items()}
    assert said == {(0, 1): {"not distinguishable"}, (0, 2): {"better"}, (1, 2): {"better"}}
    means = {key: pair["mean"]["verdict"] for key, pair in pairs.items()}
    assert {key: {value} for key, value in means.items()} == said
    task, first, second, low, high, p, _ = pairs[0, 2]["rows"][0]
    assert (task, pairs[0, 2]["cell"]) == ("one", "L6 · D384")
    assert low < second - first < high
    assert np.isclose(second - first, 0.1, atol=0.01)
    found = embedtrain.compare([tmp_path / "one", tmp_path / "better"], cells=[[6, 384]], resamples=1000)
    assert [row["corrected"] for row in found["rows"]] == pytest.approx([p, p], rel=1e-5)


def test_of_many_runs_each_is_held_against_the_best(plotly, tmp_path, monkeypatch):
    monkeypatch.setattr("embedtrain.run.report.significance.MOST", 2)
    for number in range(3):
        write_run(tmp_path / f"run_{number}", {FULL: 0.02 * (number % 2)}, seed=number)
    command("report", *(tmp_path / f"run_{number}" for number in range(3)), f"output={tmp_path}/out")
    data = data_of((tmp_path / "out/report.html").read_text("utf-8"))
    assert {(pair["first"], pair["second"]) for pair in data["pairs"]} == {(1, 0), (1, 2)}
    assert "run_1, which has the best mean" in data["pairs_note"]


def test_a_damaged_file_of_items_takes_no_other_test_with_it(plotly, tmp_path):
    folders = [write_run(tmp_path / name, {FULL: 0.0}, seed=seed) for seed, name in enumerate("abc")]
    for path in (tmp_path / "b/items/one").glob("*.npz"):
        path.write_bytes(b"PK")
    command("report", *folders, f"output={tmp_path}/out")
    pairs = data_of((tmp_path / "out/report.html").read_text("utf-8"))["pairs"]
    tested = {(pair["first"], pair["second"]): [row[5] is not None for row in pair["rows"]] for pair in pairs}
    assert tested == {(0, 1): [False, True], (0, 2): [True, True], (1, 2): [False, True]}
    assert "Remove it and evaluate again" in pairs[0]["reason"]
