import subprocess
import sys

import pytest
import yaml

from embedtrain.files.run_folder import RunFolder
from embedtrain.types import InputError

CONFIG = {"seed": 0, "data": {"train": "rows.jsonl", "batch_size": 4}, "logger": {}}


GIVEN = {"data": {"train": "rows.jsonl", "batch_size": 4}}


def prepare(folder, config=CONFIG, overwrite=False, given=GIVEN):
    return folder.prepare(config, given, overwrite=overwrite, world_size=1)


@pytest.fixture
def begun(tmp_path):
    """A run that has begun."""
    folder = RunFolder(tmp_path, "mine")
    assert prepare(folder) is False
    return folder


def test_a_new_run_writes_what_it_is(begun):
    facts = yaml.safe_load(begun.config.read_text())
    assert (facts["config"], facts["given"]) == (CONFIG, GIVEN)
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
folder.prepare({"seed": 0}, {}, overwrite=False, world_size=1)
print("ready", flush=True)
time.sleep(1800)
"""


def test_one_command_at_a_time(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"ready\n"
        with pytest.raises(InputError, match="another command is working on"):
            RunFolder(tmp_path, "run").prepare({"seed": 0}, {}, overwrite=True, world_size=1)
    finally:
        holder.kill()
        holder.wait()
    assert RunFolder(tmp_path, "run").prepare({"seed": 0}, {}, overwrite=False, world_size=1)
