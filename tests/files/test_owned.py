"""What is not ours is never removed; what a killed command left is found again or swept."""

import os
from pathlib import Path

import pytest

from embedtrain.files import owned
from embedtrain.files.atomic import atomic_folder, write_text
from embedtrain.files.locks import alive, is_taken, taken
from embedtrain.types import InputError


def written(folder: Path, text: str = "old") -> Path:
    with atomic_folder(folder, overwrite=True) as beside:
        (beside / "sub").mkdir()
        (beside / "sub/a.txt").write_text(text)
    return folder


def tree(folder: Path) -> dict[str, str]:
    """Every file and link by its path; what a link leads to is its text."""
    return {
        name: os.readlink(folder / name) if (folder / name).is_symlink() else (folder / name).read_text()
        for name in owned.entries(folder)
    }


def never_marked(folder):
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")


def with_a_file_of_mine(folder):
    written(folder)
    (folder / "sub/notes.txt").write_text("mine")


def with_a_link(folder):
    written(folder)
    (folder / "photos").symlink_to(folder.parent)


def a_link_to_ours(folder):
    folder.symlink_to(written(folder.with_name("elsewhere")))


def with_a_forged_mark(folder):
    never_marked(folder)
    (folder / owned.MARK).write_text('{"files": []}')


def with_a_broken_mark(folder):
    never_marked(folder)
    (folder / owned.MARK).write_text("[" * 100_000)


@pytest.mark.parametrize(
    "make",
    [
        never_marked,
        with_a_file_of_mine,
        with_a_link,
        a_link_to_ours,
        with_a_forged_mark,
        with_a_broken_mark,
    ],
)
@pytest.mark.parametrize("overwrite", [True, False])
def test_a_folder_of_somebody_is_left_alone_and_overwriting_is_not_advised(tmp_path, make, overwrite):
    make(tmp_path / "out")
    before = tree(tmp_path)
    with pytest.raises(InputError, match="so it is left alone: choose another folder, or move") as refused:
        with atomic_folder(tmp_path / "out", overwrite=overwrite):
            pytest.fail("must not be entered")
    assert "overwrite=true" not in str(refused.value)
    assert tree(tmp_path) == before


def test_what_we_wrote_is_replaced_with_what_a_killed_writer_left_in_it(tmp_path):
    folder = written(tmp_path / "out")
    (folder / "sub/.a.txt.tmp").write_text("half")
    assert tree(written(folder, "new"))["sub/a.txt"] == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


class Killed(BaseException):
    """Stands for the end of the process: nothing after it runs."""


def killed_at(monkeypatch, number):
    """Let the process end just before its n-th renaming, which counts from 1."""
    replace, count = os.replace, []

    def ends(*names):
        count.append(names)
        if len(count) >= number:
            raise Killed
        replace(*names)

    monkeypatch.setattr(os, "replace", ends)
    monkeypatch.setattr(owned, "remove_tree", lambda folder: None)


@pytest.mark.parametrize("number", [1, 2])
def test_a_kill_between_two_renames_leaves_what_was_there(tmp_path, monkeypatch, number):
    folder = written(tmp_path / "out")
    with monkeypatch.context() as patch:
        killed_at(patch, number)
        with pytest.raises(Killed):
            written(folder, "new")
    assert len(list(tmp_path.iterdir())) == 2
    owned.recover(folder)
    assert tree(folder)["sub/a.txt"] == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_kill_after_both_renames_leaves_the_new_alone(tmp_path, monkeypatch):
    folder = written(tmp_path / "out")
    with monkeypatch.context() as patch:
        killed_at(patch, 9)
        written(folder, "new")
    assert len(list(tmp_path.iterdir())) == 2
    owned.recover(folder)
    assert tree(folder)["sub/a.txt"] == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_copies_of_others_and_of_the_living_are_not_swept(tmp_path):
    never_marked(tmp_path / ".out.deadbeef")
    (tmp_path / ".out.0badcafe").symlink_to(tmp_path / ".out.deadbeef")
    living = tmp_path / ".out.00000001"
    living.mkdir()
    owned.mark(living, whole=False)
    with alive(living):
        owned.recover(tmp_path / "out")
        assert len(list(tmp_path.iterdir())) == 3
    owned.recover(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.0badcafe", ".out.deadbeef"]


@pytest.mark.parametrize("path", ["../precious", "link/precious"])
def test_a_file_outside_the_folder_is_not_removed(tmp_path, path):
    (tmp_path / "precious").touch()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/link").symlink_to(tmp_path)
    with pytest.raises(InputError, match="leads out of"):
        owned.remove_file(tmp_path / "mine" / path, tmp_path / "mine")
    assert (tmp_path / "precious").exists()


def test_a_link_that_we_would_write_through_is_replaced(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / ".a.txt.tmp").symlink_to(tmp_path / "precious")
    write_text(tmp_path / "a.txt", "new")
    assert ((tmp_path / "precious").read_text(), (tmp_path / "a.txt").read_text()) == ("mine", "new")
    assert not (tmp_path / "a.txt").is_symlink()


def test_a_removed_tree_takes_nothing_that_a_link_leads_to(tmp_path):
    never_marked(tmp_path / "precious")
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours/link").symlink_to(tmp_path / "precious")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    owned.remove_tree(tmp_path / "ours")
    owned.remove_tree(tmp_path / "link")
    assert tree(tmp_path / "precious") == {"thesis.txt": "years of work"}
    assert not (tmp_path / "ours").exists()


def holds(path):
    with taken(path):
        pass


def test_a_folder_that_a_process_works_on_is_refused_to_others(tmp_path, processes):
    with taken(tmp_path / "out"):
        process = processes.call(Path(__file__), "holds", tmp_path / "out")
        process.join()
        assert "another command is working on" in process.log.read_text()
    process = processes.call(Path(__file__), "holds", tmp_path / "out")
    process.join()
    assert process.exitcode == 0


REPORT = '{"name": "x", "findings": []}'


def test_a_file_of_somebody_is_not_replaced(tmp_path):
    file = tmp_path / "report.json"
    owned.require_own_json(file, "name", "findings")
    file.write_text(REPORT)
    owned.require_own_json(file, "name", "findings")
    for text in ("{}", "[1]", "notes", "[" * 100_000):
        file.write_text(text)
        with pytest.raises(InputError, match=r"report\.json was not written by embedtrain, so"):
            owned.require_own_json(file, "name", "findings")
    file.unlink()
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is a link"):
        owned.require_own_json(file, "name", "findings")


def test_a_process_has_a_lock_once_and_asking_lets_it_not_go(tmp_path, processes):
    """POSIX gives a process its own lock again, and takes it away as any file of the lock is closed."""
    with taken(tmp_path / "x"):
        for _ in range(2):
            assert is_taken(tmp_path / "x")
            with pytest.raises(InputError, match="another command is working on"), taken(tmp_path / "x"):
                pass
        assert processes.result(Path(__file__), "is_taken", tmp_path / "x")
    assert not is_taken(tmp_path / "x")
