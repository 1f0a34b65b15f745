import errno
import os
from pathlib import Path

import pytest
from safetensors import SafetensorError

from embedtrain.model.atomic import atomic_folder
from embedtrain.types import InputError


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def write_half(folder: Path, error: BaseException, *, overwrite: bool = False) -> None:
    with atomic_folder(folder, overwrite=overwrite) as beside:
        (beside / "half.txt").write_text("half")
        raise error


def test_a_folder_appears_whole(tmp_path):
    folder = tmp_path / "new" / "model"
    with atomic_folder(folder) as beside:
        (beside / "sub").mkdir()
        (beside / "sub" / "a.txt").write_text("a")
        assert not folder.exists()
    assert content(tmp_path / "new") == {"model/sub/a.txt": "a"}


def test_files_are_readable_by_whoever_may_read_new_files(tmp_path):
    (tmp_path / "plain").write_text("")
    with atomic_folder(tmp_path / "model") as beside:
        (beside / "secret").write_text("")
        (beside / "secret").chmod(0o600)
    assert (tmp_path / "model" / "secret").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()])
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_error_leaves_everything_as_it_was(tmp_path, error, overwrite):
    folder = tmp_path / "model"
    if overwrite:
        folder.mkdir()
        (folder / "old.txt").write_text("old")
    before = content(tmp_path)
    with pytest.raises(type(error)):
        write_half(folder, error, overwrite=overwrite)
    assert content(tmp_path) == before
    assert [entry.name for entry in tmp_path.iterdir()] == (["model"] if overwrite else [])


def test_overwriting_replaces_all_of_it(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "old.txt").write_text("old")
    with atomic_folder(folder, overwrite=True) as beside:
        (beside / "new.txt").write_text("new")
    assert content(tmp_path) == {"model/new.txt": "new"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_a_rename_that_fails_brings_the_old_folder_back(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "old.txt").write_text("old")
    replace, calls = os.replace, []

    def second_fails(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(errno.EIO, "broken disk")
        replace(source, target)

    monkeypatch.setattr(os, "replace", second_fails)
    with pytest.raises(OSError, match="broken disk"), atomic_folder(folder, overwrite=True) as beside:
        (beside / "new.txt").write_text("new")
    assert content(tmp_path) == {"model/old.txt": "old"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_an_existing_folder_is_refused_unless_it_is_empty(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    with atomic_folder(folder) as beside:
        (beside / "a.txt").write_text("a")
    with pytest.raises(
        InputError, match=r"model exists already: choose another folder, or pass overwrite=tr"
    ):
        with atomic_folder(folder):
            pytest.fail("must not be entered")
    with pytest.raises(InputError, match=r"a\.txt is a file: choose another folder"):
        with atomic_folder(folder / "a.txt"):
            pytest.fail("must not be entered")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_names_the_folder_and_leaves_nothing(tmp_path, error):
    with pytest.raises(
        InputError, match=r"cannot save to .*/model: the disk is full; nothing was left behind"
    ):
        write_half(tmp_path / "model", error)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_while_flushing_counts_too(tmp_path, monkeypatch):
    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="the disk is full"), atomic_folder(tmp_path / "model"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    def denied(self: Path, **_settings: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", denied)
    with pytest.raises(InputError, match=r"cannot save to .*model: Permission denied .* you may write to"):
        with atomic_folder(tmp_path / "model"):
            pytest.fail("must not be entered")


def test_other_safetensors_errors_are_not_called_a_full_disk(tmp_path):
    with pytest.raises(SafetensorError, match="other"), atomic_folder(tmp_path / "model"):
        raise SafetensorError("other")
