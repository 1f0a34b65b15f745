import subprocess
import sys
from contextlib import suppress

import pytest
import yaml

from embedtrain.files import owned
from embedtrain.files.atomic import atomic_folder
from embedtrain.files.run_folder import RunFolder
from embedtrain.run.models import model_folder
from embedtrain.types import InputError

CONFIG = {"seed": 0, "data": {"train": "rows.jsonl", "batch_size": 4}, "logger": {}}


GIVEN = {"data": {"train": "rows.jsonl", "batch_size": 4}}


def prepare(folder, config=CONFIG, overwrite=False, given=GIVEN, identity=None):
    config = {**config, "overwrite": overwrite}
    folder.lock()
    if overwrite:
        folder.begins_anew(config, given, identity)
    return folder.prepare(config, given, identity, world_size=1)


@pytest.fixture
def begun(tmp_path):
    """A run that has begun."""
    folder = RunFolder(tmp_path, "mine")
    assert prepare(folder) is False
    return folder


def test_a_new_run_writes_what_it_is(begun):
    facts = yaml.safe_load(begun.config.read_text())
    assert (facts["config"], facts["given"]) == ({**CONFIG, "overwrite": False}, GIVEN)
    assert facts["world_size"] == 1
    assert facts["versions"]["torch"].startswith("2.")


def test_an_unfinished_run_continues_with_the_same_settings(begun):
    assert prepare(begun, {**CONFIG, "logger": {"_target_": "x"}}) is True


def test_other_settings_are_named(begun):
    changed = {**CONFIG, "data": {"train": "rows.jsonl", "batch_size": 8}}
    with pytest.raises(InputError, match=r"other settings \(data.batch_size: was 4, is 8\).*overwrite=true"):
        prepare(begun, changed)
    assert prepare(begun, changed, overwrite=True) is False


def test_a_default_that_changed_between_versions_is_named_as_one(begun):
    with pytest.raises(InputError, match=r"defaults have changed since \(seed: was 0, is 1\).*seed=0,"):
        prepare(begun, {**CONFIG, "seed": 1})
    with pytest.raises(InputError, match=r"other settings \(seed: was 0, is 1\)"):
        prepare(begun, {**CONFIG, "seed": 1}, given={**GIVEN, "seed": 1})


def test_a_setting_that_one_version_lacks_is_said_and_stops_nothing(begun, caplog):
    assert prepare(begun, {**CONFIG, "shuffle": True}) is True
    assert "shuffle: was unset, is True" in caplog.text


def test_what_another_method_brings_is_not_laid_to_the_version(begun, caplog):
    """Its own settings are new to the folder too; the choice of the method is what differs."""
    config = {**CONFIG, "data": {**CONFIG["data"], "batch_size": 8}, "density": 0.2}
    with pytest.raises(InputError, match=r"other settings \(data.batch_size: was 4, is 8\)"):
        prepare(begun, config)
    assert "only one of embedtrain" not in caplog.text


def test_a_part_in_a_list_is_compared_setting_by_setting(tmp_path):
    folder, rules = RunFolder(tmp_path, "mine"), [{"_target_": "x", "margin": 0.0}]
    prepare(folder, {**CONFIG, "rules": rules}, given={**GIVEN, "rules": [{"_target_": "x"}]})
    with pytest.raises(InputError, match=r"defaults have changed .* \(rules\.0\.margin: was 0\.0, is 0\.1\)"):
        prepare(folder, {**CONFIG, "rules": [{"_target_": "x", "margin": 0.1}]})


def test_a_run_of_a_version_that_did_not_write_its_defaults_says_so(begun):
    facts = yaml.safe_load(begun.config.read_text())
    del facts["given"]
    begun.config.write_text(yaml.safe_dump(facts))
    with pytest.raises(InputError, match=r"whose config\.yaml does not hold its defaults.*overwrite=true"):
        prepare(begun)


def test_a_finished_run_is_never_overwritten_unasked(begun):
    begun.model.mkdir()
    with pytest.raises(InputError, match=r"mine holds a finished run\. Use another name=.*overwrite=true"):
        prepare(begun)
    assert prepare(begun, overwrite=True) is False
    assert not begun.model.exists()


def trained(folder, step=1):
    """A folder as of a run that has a checkpoint."""
    folder.checkpoints.at(step).parent.mkdir(exist_ok=True)
    folder.checkpoints.at(step).write_text(f"step {step}")
    folder.checkpoints.last.symlink_to(folder.checkpoints.at(step).name)
    return folder


def finished(folder, **more):
    """A finished run of other settings."""
    prepare(folder, {**CONFIG, "seed": 7}, **more)
    with atomic_folder(folder.model) as beside:
        (beside / "model.safetensors").write_text("precious")
    folder.release()
    return trained(folder)


def names(root):
    return sorted(path.name for path in root.iterdir() if not path.name.endswith(".lock"))


def web_project(path):
    path.mkdir()
    (path / "config.yaml").write_text("server: {port: 80}\n")
    (path / "model").mkdir()
    (path / "model/index.html").write_text("mine")


def our_config_alone(path):
    finished(RunFolder(path.parent, path.name))
    (path / "src").mkdir()
    (path / "src/app.py").write_text("mine")


def notes_beside_the_weights(path):
    finished(RunFolder(path.parent, path.name))
    (path / "model/notes.txt").write_text("mine")


def another_disk(path):
    finished(RunFolder(path.parent, path.name))
    (path / "checkpoints").rename(path.parent / "disk")
    (path / "checkpoints").symlink_to(path.parent / "disk")


def a_link(path):
    finished(RunFolder(path.parent, "elsewhere"))
    path.symlink_to(path.parent / "elsewhere")


@pytest.mark.parametrize(
    "make", [web_project, our_config_alone, notes_beside_the_weights, another_disk, a_link]
)
@pytest.mark.parametrize("overwrite", [True, False])
def test_what_is_somebodys_is_left_alone_and_overwriting_is_not_advised(tmp_path, make, overwrite):
    make(tmp_path / "mine")
    before = {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError) as refused:
        prepare(RunFolder(tmp_path, "mine"), overwrite=overwrite)
    assert "overwrite=true" not in str(refused.value)
    assert {path: path.read_text() for path in before if path.is_file()} == before
    if overwrite:
        assert str(refused.value).endswith("so it is left alone: use another name=..., or move it away")


def test_the_old_run_stays_until_the_new_one_has_a_checkpoint(tmp_path):
    old = finished(RunFolder(tmp_path, "mine"))
    new = RunFolder(tmp_path, "mine")
    assert prepare(new, overwrite=True) is False
    assert names(tmp_path) == [".mine.replaced", "mine"]
    new.settle()
    assert (tmp_path / ".mine.replaced/model/model.safetensors").read_text() == "precious"
    trained(new).settle()
    assert names(tmp_path) == ["mine"]
    assert not old.model.exists()


def test_a_second_attempt_before_the_first_checkpoint_keeps_what_was_there(tmp_path):
    finished(RunFolder(tmp_path, "mine"))
    for seed in (1, 2):
        attempt = RunFolder(tmp_path, "mine")
        assert prepare(attempt, {**CONFIG, "seed": seed}, overwrite=True) is False
        attempt.release()
    assert (tmp_path / ".mine.replaced/model/model.safetensors").read_text() == "precious"
    assert names(tmp_path) == [".mine.replaced", "mine"]


@pytest.mark.parametrize("number", [1, 2])
def test_a_kill_between_two_renames_leaves_the_old_run(tmp_path, monkeypatch, number):
    finished(RunFolder(tmp_path, "mine"))
    with monkeypatch.context() as patch:
        rename, calls = owned.rename, []

        def ends(path, to):
            calls.append(path)
            if len(calls) == number:
                raise KeyboardInterrupt
            rename(path, to)

        patch.setattr(owned, "rename", ends)
        killed = RunFolder(tmp_path, "mine")
        with pytest.raises(KeyboardInterrupt):
            prepare(killed, overwrite=True)
    killed._locked.close()  # as the end of the process does
    again = RunFolder(tmp_path, "mine")
    again.lock()
    assert again.is_finished
    assert again.stranger() is None
    assert names(tmp_path) == ["mine"]
    owned.recover(again.path)


def test_whoever_reads_a_run_brings_it_back(tmp_path):
    path = finished(RunFolder(tmp_path, "mine")).path
    path.rename(tmp_path / ".mine.replaced")
    assert model_folder(str(path)) == str(path / "model")


def test_overwrite_holds_for_the_first_start_alone(tmp_path):
    finished(RunFolder(tmp_path, "mine"))
    first = RunFolder(tmp_path, "mine")
    prepare(first, overwrite=True)
    trained(first).release()
    again = RunFolder(tmp_path, "mine")
    assert prepare(again, overwrite=True) is True
    assert again.checkpoints.at(1).exists()
    again.release()
    other = RunFolder(tmp_path, "mine")
    assert prepare(other, {**CONFIG, "seed": 2}, overwrite=True) is False
    assert not other.checkpoints.at(1).exists()


def test_a_finished_run_that_overwrote_another_is_itself_overwritten(tmp_path):
    finished(RunFolder(tmp_path, "mine"), overwrite=True)
    assert prepare(RunFolder(tmp_path, "mine"), {**CONFIG, "seed": 7}, overwrite=True) is False


def test_copies_that_a_killed_run_was_writing_are_swept(tmp_path):
    folder = RunFolder(tmp_path, "mine")
    prepare(folder)
    for name in (".model.0123abcd", ".cut_L3_D96.0123abcd", ".photos.0123abcd"):
        (folder.path / name).mkdir()
        owned.mark(folder.path / name, whole=False)
    folder.release()
    RunFolder(tmp_path, "mine").lock()
    assert names(folder.path) == [".photos.0123abcd", "config.yaml"]


IDENTITY = {"training rows of pairs": "a", "validation rows": "b", "tokenizer": "c", "starting weights": "d"}


@pytest.mark.parametrize("changed", IDENTITY)
def test_a_run_on_anything_else_than_it_began_with_is_refused(tmp_path, changed):
    folder = RunFolder(tmp_path, "mine")
    prepare(folder, identity=IDENTITY)
    now = {**IDENTITY, changed: "other"}
    with pytest.raises(InputError, match=rf"has changed since it began: {changed}\. Put .*overwrite=true"):
        prepare(folder, identity=now)
    assert prepare(folder, identity=IDENTITY) is True
    assert prepare(folder, identity=now, overwrite=True) is False


def test_a_run_that_overwrites_begins_anew_on_other_rows(tmp_path):
    folder = RunFolder(tmp_path, "mine")
    prepare(folder, identity=IDENTITY, overwrite=True)
    assert prepare(folder, identity=IDENTITY, overwrite=True) is True
    assert prepare(folder, identity={**IDENTITY, "tokenizer": "other"}, overwrite=True) is False


def test_other_versions_are_said(tmp_path, caplog):
    folder = RunFolder(tmp_path, "mine")
    prepare(folder)
    facts = yaml.safe_load(folder.config.read_text())
    facts["versions"]["torch"] = "1.0"
    folder.config.write_text(yaml.safe_dump(facts))
    assert prepare(folder) is True
    assert "mine goes on with other versions than it began with: torch was 1.0, is " in caplog.text


def test_overwrite_never_deletes_what_no_run_has_written(tmp_path):
    folder = RunFolder(tmp_path, "photos")
    folder.path.mkdir()
    (folder.path / "cat.jpg").touch()
    with pytest.raises(InputError, match="not empty and holds no run"):
        prepare(folder, overwrite=True)
    assert (folder.path / "cat.jpg").exists()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x"])
def test_a_name_is_one_folder(tmp_path, name):
    with pytest.raises(InputError, match="name must be a plain folder name"):
        RunFolder(tmp_path, name)


HOLDER = """
import sys, time
from embedtrain.files.run_folder import RunFolder
folder = RunFolder(sys.argv[1], "run")
folder.prepare({"seed": 0}, {}, world_size=1)
print("ready", flush=True)
time.sleep(1800)
"""


def test_one_command_at_a_time(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"ready\n"
        with pytest.raises(InputError, match="another command is working on"):
            RunFolder(tmp_path, "run").prepare({"seed": 0}, {}, world_size=1)
    finally:
        holder.kill()
        holder.wait()
    assert RunFolder(tmp_path, "run").prepare({"seed": 0}, {}, world_size=1)


@pytest.mark.parametrize("suffix", ["anew", "dropped", "replaced"])
def test_a_folder_beside_a_run_that_is_not_ours_is_left_alone(tmp_path, suffix):
    """Names that commands use for drafts and runs set aside prove nothing: what is in them does."""
    theirs = tmp_path / f".mine.{suffix}" / "thesis.txt"
    theirs.parent.mkdir()
    theirs.write_text("years of work")
    with pytest.raises(InputError, match="left alone"):
        RunFolder(tmp_path, "mine").lock()
    assert theirs.read_text() == "years of work"
    assert not (tmp_path / "mine").exists()
    with pytest.raises(InputError, match="use another name"):
        RunFolder(tmp_path, f".mine.{suffix}")


@pytest.mark.parametrize(
    "theirs", ["bad_rows/thesis.txt", "wandb/notes.txt", "lightning_logs/my.txt", "checkpoints/notes.txt"]
)
def test_a_file_among_those_of_loggers_and_reports_makes_a_run_somebodys(tmp_path, theirs):
    folder = RunFolder(tmp_path, "mine")
    folder.prepare({"name": "mine"}, {}, world_size=1)
    assert folder.stranger() is None
    (folder.path / theirs).parent.mkdir(exist_ok=True)
    (folder.path / theirs).write_text("mine")
    assert theirs in folder.stranger()


def test_a_run_with_the_folder_of_its_logger_is_replaced_and_dropped(tmp_path):
    """Some loggers make a folder of their name: it is the run's, until the last step of its removal."""
    config = {"name": "mine", "logger": {"name": "curves"}, "overwrite": True}
    old = RunFolder(tmp_path, "mine")
    old.prepare(config, {}, world_size=1)
    (old.path / "curves").mkdir()
    (old.path / "curves/a.csv").write_text("1")
    (old.path / "model").mkdir()
    old.release()
    new = RunFolder(tmp_path, "mine")
    new.lock()
    assert new.begins_anew(config, {})
    assert new.prepare(config, {}, world_size=1) is False
    (new.path / "checkpoints").mkdir()
    (new.path / "checkpoints/step_000000001.ckpt").write_bytes(b"")
    new.settle()
    assert not list(tmp_path.glob(".mine.*d"))
    assert not (new.path / "curves").exists()


def test_a_folder_of_somebody_is_not_taken_for_the_run_set_aside(tmp_path):
    """With it there, the finished run would go before the new one has anything."""
    config = {"name": "mine", "overwrite": True}
    old = RunFolder(tmp_path, "mine")
    old.prepare(config, {}, world_size=1)
    (old.path / "model").mkdir()
    old.release()
    theirs = tmp_path / ".mine.replaced/notes.txt"
    theirs.parent.mkdir()
    theirs.write_text("mine")
    new = RunFolder(tmp_path, "mine")
    new.lock()
    assert new.begins_anew(config, {})
    with pytest.raises(InputError, match="left alone"):
        new.prepare(config, {}, world_size=1)
    assert theirs.exists()
    assert (new.path / "model").exists()


@pytest.mark.parametrize("suffix", ["anew", "dropped", "replaced", "abcdef01.replaced", "abcdef01"])
@pytest.mark.parametrize("name", ["config.yaml", "thesis.txt", "metrics.csv"])
@pytest.mark.parametrize("there", [True, False])
def test_no_folder_of_somebody_beside_a_place_is_touched(tmp_path, suffix, name, there):
    """By a run, nor by whoever asks for a model or writes a folder there."""
    if (suffix, name) in [("anew", "metrics.csv"), ("dropped", "metrics.csv")]:
        return  # what a killed run left is known by the names of its files
    theirs = tmp_path / f".mine.{suffix}" / name
    theirs.parent.mkdir()
    theirs.write_text("mine")
    if there:
        (tmp_path / "mine").mkdir()
    model_folder(str(tmp_path / "mine"))
    owned.recover(tmp_path / "mine")
    with suppress(InputError):
        run = RunFolder(tmp_path, "mine")
        run.begins_anew({}, {})
        run.prepare({}, {}, {}, world_size=1)
        run.settle()
    run.release()
    assert theirs.read_text() == "mine"


def test_a_run_that_was_set_aside_is_found_by_whoever_asks_for_its_model(tmp_path):
    run = RunFolder(tmp_path, "mine")
    run.prepare({}, {}, {}, world_size=1)
    run.release()
    (run.path / "checkpoints").mkdir()
    (run.path / "model").mkdir()
    (run.path / "model/embedtrain.json").write_text("{}")
    run.path.rename(tmp_path / ".mine.replaced")
    assert model_folder(str(run.path)) == str(run.path / "model")
