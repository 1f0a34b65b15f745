import errno
import os
from pathlib import Path

import pytest
from safetensors import SafetensorError

from embedtrain.files.atomic import atomic_file, atomic_folder, is_disk_full, write_text
from embedtrain.files.owned import MARK
from embedtrain.types import InputError


def content(folder: Path) -> dict[str, str]:
    """The files of a folder, marks left out."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != MARK]
    return {str(path.relative_to(folder)): path.read_text() for path in files}


def old_folder(folder: Path) -> Path:
    """A folder of one file."""
    with atomic_folder(folder) as beside:
        (beside / "old.txt").write_text("old")
    return folder


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder that was written before."""
    return old_folder(tmp_path / "model")


def write_half(folder: Path, error: BaseException, *, overwrite: bool = False) -> None:
    with atomic_folder(folder, overwrite=overwrite) as beside:
        (beside / "half.txt").write_text("half")
        raise error


def write_half_file(path: Path, error: BaseException) -> None:
    with atomic_file(path) as file:
        file.write(b"half")
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
        old_folder(folder)
    before = content(tmp_path)
    with pytest.raises(type(error)):
        write_half(folder, error, overwrite=overwrite)
    assert content(tmp_path) == before
    assert [entry.name for entry in tmp_path.iterdir()] == (["model"] if overwrite else [])


def test_overwriting_replaces_all_of_it(old, tmp_path):
    with atomic_folder(old, overwrite=True) as beside:
        (beside / "new.txt").write_text("new")
    assert content(tmp_path) == {"model/new.txt": "new"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_a_rename_that_fails_brings_the_old_folder_back(old, tmp_path, monkeypatch):
    replace, calls = os.replace, []

    def second_fails(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(errno.EIO, "broken disk")
        replace(source, target)

    monkeypatch.setattr(os, "replace", second_fails)
    with pytest.raises(OSError, match="broken disk"), atomic_folder(old, overwrite=True) as beside:
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


def test_a_full_disk_while_flushing_counts_too(tmp_path, full_disk):
    full_disk(os, "fsync")
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


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / "new" / "a.bin"
    with atomic_file(path) as file:
        file.write(b"abc")
        file.seek(-1, os.SEEK_END)
        assert file.read() == b"c"
        assert not path.exists()
    assert path.read_bytes() == b"abc"
    write_text(path, "caf\u00e9\n")
    assert path.read_bytes() == "caf\u00e9\n".encode()
    assert [entry.name for entry in path.parent.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
@pytest.mark.parametrize("there", [False, True])
def test_an_error_leaves_a_file_as_it_was(tmp_path, error, there):
    path = tmp_path / "a.txt"
    if there:
        path.write_text("old")
    with pytest.raises(type(error)):
        write_half_file(path, error)
    assert content(tmp_path) == ({"a.txt": "old"} if there else {})


def test_what_a_killed_writer_left_is_replaced_and_others_are_let_be(tmp_path):
    path = tmp_path / "a.txt"
    (tmp_path / ".a.txt.tmp").write_text("a long half of a file")
    (tmp_path / ".a.txt.other.tmp").write_text("of another writer")
    write_text(path, "new")
    assert content(tmp_path) == {"a.txt": "new", ".a.txt.other.tmp": "of another writer"}


def test_two_writers_with_marks_do_not_meet(tmp_path):
    path = tmp_path / "a.txt"
    with atomic_file(path, mark=".1") as one, atomic_file(path, mark=".2") as two:
        one.write(b"one")
        two.write(b"two")
    assert content(tmp_path) == {"a.txt": "one"}  # which ended last


def test_a_full_disk_is_known_through_what_wraps_it():
    full = OSError(errno.ENOSPC, "No space left on device")
    wrapped = RuntimeError("cannot write")
    wrapped.__cause__ = RuntimeError("file write failed")
    wrapped.__cause__.__context__ = full
    assert is_disk_full(full)
    assert is_disk_full(wrapped)
    assert not is_disk_full(RuntimeError("cannot write"))
    assert not is_disk_full(OSError(errno.EIO, "broken disk"))
    assert not is_disk_full(None)
