"""Whatever a disk refuses, a command ends with one line that says what to do."""

import errno
import os

import pytest

from embedtrain.cli.launch import _errors_in_one_line
from embedtrain.files.atomic import atomic_file
from embedtrain.types import InputError


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
