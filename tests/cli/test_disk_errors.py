"""Whatever a disk refuses, a command ends with one line that says what to do."""

import errno
import os

import pytest

from embedtrain.cli.launch import _errors_in_one_line
from embedtrain.files.atomic import atomic_file, write_text
from embedtrain.files.scores import TaskFacts, add_tasks, write_scores
from embedtrain.mining.output import write_rows
from embedtrain.report.figures import save_heat_map
from embedtrain.report.leaderboard import leaderboard, write_leaderboard
from embedtrain.training.checkpoints import HashedCheckpointIO
from embedtrain.training.metrics import FileLogger
from embedtrain.types import InputError, Score


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.EROFS, "Choose a file or folder that you may read and write"),
        (errno.EACCES, "Choose a file or folder that you may read and write"),
        (errno.ENOTDIR, "Choose a file or folder that you may read and write"),
        (errno.EIO, "Choose a file or folder that you may read and write"),
        (errno.ENAMETOOLONG, "Give a shorter name"),
        (errno.ENOLCK, "This disk has no locks: choose a folder on another one"),
        (errno.ENOSPC, "the disk is full; free some space"),
        (errno.EDQUOT, "the disk is full; free some space"),
    ],
)
def test_an_error_of_the_disk_is_one_line_with_a_cure(number, cure, tmp_path, monkeypatch, capsys):
    def refused(*_):
        raise OSError(number, os.strerror(number), str(tmp_path / "a"))

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(SystemExit) as left, _errors_in_one_line({}), atomic_file(tmp_path / "a"):
        pass
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'a'}: ")
    assert cure in line
    assert left.value.code == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [OSError, MemoryError, RecursionError, InputError])
def test_the_place_in_the_code_is_shown_when_asked_for(kind, monkeypatch, capsys):
    """So that an error of our own is never taken for one of the disk."""

    def broken():
        raise kind("lost")

    shown = []
    for asked in ("0", "1"):
        monkeypatch.setenv("HYDRA_FULL_ERROR", asked)
        with pytest.raises(SystemExit), _errors_in_one_line({}):
            broken()
        shown.append(capsys.readouterr().err)
    assert len(shown[0].splitlines()) == 1
    assert ("HYDRA_FULL_ERROR=1 shows where" in shown[0]) == (kind is not InputError)
    assert "in broken" in shown[1]
    assert shown[1].endswith(shown[0])


@pytest.mark.parametrize("out", ["/dev/null", "/dev/null/small", "/proc/small", f"{'x' * 300}"])
def test_an_output_that_cannot_be_is_named(out, tiny_bert, error_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert out[:6] in error_of("export", f"model={tiny_bert}", f"out={out}")


@pytest.mark.parametrize("out", ["/dev/null/runs", "/proc/runs", f"{'x' * 300}"])
def test_a_run_folder_that_cannot_be_is_named(out, small_run, error_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert out[:60] in error_of("train", *small_run, "name=x", f"output_root={out}")


def _score(value):
    return Score("run", 1, "task", "test", 2, 8, "main", value)


def _metrics(folder, value):
    logger = FileLogger(folder)
    logger.log_metrics({"loss": value}, step=0)
    logger.finalize("success")


FACTS = TaskFacts("STS", "sentence-similarity", "local", "r", "default", False)
WRITERS = {
    "scores.jsonl": lambda folder, value: write_scores(folder / "scores.jsonl", [_score(value)]),
    "tasks.json": lambda folder, value: add_tasks(folder / "tasks.json", {str(value): FACTS}),
    "leaderboard.csv": lambda folder, value: write_leaderboard(folder, leaderboard([_score(value)], {}, {})),
    "heat_map.png": lambda folder, value: save_heat_map(folder / "heat_map.png", [_score(value)]),
    "metrics.csv": _metrics,
    "comparison.json": lambda folder, value: write_text(folder / "comparison.json", str(value)),
    "mined.jsonl": lambda folder, value: write_rows(folder / "mined.jsonl", [{"query": str(value)}]),
    "step.ckpt": lambda folder, value: HashedCheckpointIO().save_checkpoint(
        {"a": value}, folder / "step.ckpt"
    ),
}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.ENAMETOOLONG, errno.ENOLCK, errno.EIO])
@pytest.mark.parametrize("name", WRITERS)
def test_a_writer_that_the_disk_refuses_keeps_what_was_there(name, number, tmp_path, monkeypatch, capsys):
    WRITERS[name](tmp_path, 0.25)
    before = (tmp_path / name).read_bytes()

    def refused(*_):
        raise OSError(number, os.strerror(number), str(tmp_path / name))

    monkeypatch.setattr(os, "fsync", refused)
    with pytest.raises(SystemExit), _errors_in_one_line({}):
        WRITERS[name](tmp_path, 0.75)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert name in line
    assert (tmp_path / name).read_bytes() == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")], "nothing half is left"
