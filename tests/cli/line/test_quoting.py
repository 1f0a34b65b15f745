"""Paths and names as a shell completes them reach the settings as they are."""

import shlex

import pytest

from embedtrain.cli.launch import settings_from
from embedtrain.cli.line.quoting import as_typed, check_readable, quoted
from embedtrain.settings.commands import TrainSettings
from embedtrain.types import InputError

NAMES = [
    "lang=de/rows.jsonl",
    "rows (1).jsonl",
    "rows,v2.jsonl",
    "Größe_数据.jsonl",
    "строки.jsonl",
    "صفوف.jsonl",
    "it's.jsonl",
    'a "b".jsonl',
    "a#b&c;d|e~f.jsonl",
    "a[1]{2}.jsonl",
    "C:\\rows\\",
    "2024_01",
    "1e5",
    "true",
    " two  spaces.jsonl",
]


def read(*words, sweep=False):
    return settings_from("train", quoted(["name=x", "data.train=y", *words], TrainSettings, sweep=sweep))


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_there_is_named_as_it_is(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    assert read(f"data.train={name}").data.train == name
    assert read(f"backbone.path={name}").backbone.settings["path"] == name
    assert read(f"data.train={tmp_path}/{name}").data.train == f"{tmp_path}/{name}"


@pytest.mark.parametrize("name", [name for name in NAMES if "," not in name])
def test_so_is_one_that_is_yet_to_be_written(name):
    assert read(f"output_root={name}").output_root == name


def test_files_of_a_list_too():
    found = read("data.train=[lang=de/a.jsonl,b (1).jsonl,c.jsonl]").data.train
    assert found == ["lang=de/a.jsonl", "b (1).jsonl", "c.jsonl"]


@pytest.mark.parametrize(
    "word",
    [
        "seed=3",
        "optim.lr=1e-4",
        "data.columns={query: a}",
        "plan.pairs=[[1,8],[4,32]]",
        "data.train='a b'",
        "name=x_${seed}",
        "~guide",
        "+a.b=1",
        "eval_during=none",
        "data.validation=null",
        "seed=[1,2",
        "overwrite=true",
    ],
)
def test_all_else_is_left_to_hydra(word):
    assert quoted([word], TrainSettings, sweep=False) == [word]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("name=a,b", "name=a,b"),
        ("name=größe,b", "name='größe',b"),
        ("seed=choice(1,2)", "seed=choice(1,2)"),
        ("seed=range(1,4)", "seed=range(1,4)"),
    ],
)
def test_commas_of_a_sweep_separate(word, expected):
    assert quoted([word], TrainSettings, sweep=True) == [expected]


def test_what_stays_unreadable_is_shown_as_it_can_be_typed():
    with pytest.raises(InputError, match=r"Close brackets.* 'data.train=\"\[a\"'"):
        check_readable(["data.train=[a"])
    for word in ("data.train=a (1),b.jsonl", "data.train=[a", 'data.train=a"b'):
        (typed,) = shlex.split(as_typed(word))
        assert read(typed).data.train == word.partition("=")[2]
