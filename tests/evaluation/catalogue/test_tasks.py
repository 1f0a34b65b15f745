import gzip
import json
import logging
import re

import pytest
from small_runs import read_rows
from tasks import local_tasks, official_tasks

from embedtrain.evaluation.catalogue.tasks import find_tasks, load
from embedtrain.types import InputError


def names(tasks):
    return [task.metadata.name for task in tasks]


def test_every_kind_is_found_with_its_split_and_main_metric(data_root):
    tasks = local_tasks(data_root)
    assert {(t.metadata.name, t.metadata.type, *t.eval_splits, t.metadata.main_score) for t in tasks} == {
        ("mine", "STS", "test", "cosine_spearman"),
        ("twins", "PairClassification", "dev", "max_ap"),
        ("colours", "Classification", "test", "accuracy"),
        ("find", "Retrieval", "test", "ndcg_at_10"),
    }


def test_splits_can_be_chosen(data_root):
    (task,) = local_tasks(data_root, ["mine"], splits=["train"])
    load(task)
    assert task.eval_splits == ["train"]
    assert len(task.dataset["train"]) == 1
    with pytest.raises(InputError, match=r"sts/mine has no split dev; it has test, train"):
        local_tasks(data_root, ["mine"], splits=["dev"])


def test_find_tasks_takes_local_names_paths_and_official_names(data_root):
    assert set(names(find_tasks(["local"], data_root))) == {"mine", "twins", "colours", "find"}
    assert names(find_tasks(["sts/mine", "mine", "STS12"], data_root)) == ["mine", "STS12"]
    assert names(find_tasks(["STS12"])) == ["STS12"]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (["min"], "no task 'min'; nearest: mine"),
        (["STSBenchmrk"], "no task 'STSBenchmrk'; nearest: .*STSBenchmark"),
        (["sts/mihne"], "nearest: sts/mine"),
        ([], "no task given"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(data_root, wanted, message):
    with pytest.raises(InputError, match=message):
        find_tasks(wanted, data_root)


def test_missing_roots_are_said(tmp_path, data_root):
    with pytest.raises(InputError, match=r"tasks=\[local\] needs data_root"):
        find_tasks(["local"])
    with pytest.raises(InputError, match="nowhere is not a folder"):
        local_tasks(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"has no data set such as sts/mine/test\.jsonl"):
        local_tasks(tmp_path / "data" / "sts")
    with pytest.raises(InputError, match=r"no task 'mnie'; nearest: mine"):
        local_tasks(data_root, ["mnie"])


def test_a_set_that_cannot_be_evaluated_is_left_out_of_all_but_refused_by_name(data_root, write, caplog):
    write(data_root / "retrieval/half/corpus.jsonl", [{"id": "1", "text": "a"}])
    write(data_root / "sts/untested/train.jsonl", [{"sentence1": "a", "sentence2": "b", "score": 1}])
    with caplog.at_level(logging.WARNING):
        assert len(local_tasks(data_root)) == 4
    assert "left out: retrieval/half lacks queries, qrels; it has corpus" in caplog.text
    assert "left out: sts/untested has no split to evaluate" in caplog.text
    with pytest.raises(InputError, match="retrieval/half lacks queries, qrels"):
        local_tasks(data_root, ["half"])


def test_equal_names_of_two_kinds_are_told_apart(data_root, write):
    write(data_root / "pairs/mine/test.jsonl", [{"sentence1": "a", "sentence2": "b", "label": 1}])
    assert {"sts_mine", "pairs_mine"} <= set(names(local_tasks(data_root)))
    with pytest.raises(InputError, match="'mine' is sts/mine and pairs/mine; say which"):
        local_tasks(data_root, ["mine"])


def test_the_data_revision_follows_the_content_of_what_is_evaluated(data_root, write):
    def revision():
        return local_tasks(data_root, ["mine"])[0].metadata.dataset["revision"]

    first = revision()
    write(data_root / "sts/mine/train.jsonl", [{"sentence1": "x", "sentence2": "y", "score": 1}])
    assert revision() == first
    write(data_root / "sts/mine/test.jsonl", [{"sentence1": "x", "sentence2": "y", "score": 1}])
    assert revision() != first


def test_gzip_parquet_and_saved_datasets_give_the_same_rows(data_root, tmp_path):
    from datasets import Dataset, DatasetDict

    rows = read_rows(data_root / "sts/mine/test.jsonl")
    other = tmp_path / "other/sts"
    for name in ("zipped", "parquet"):
        (other / name).mkdir(parents=True)
    with gzip.open(other / "zipped/test.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    Dataset.from_list(rows).to_parquet(other / "parquet/test.parquet")
    DatasetDict(test=Dataset.from_list(rows)).save_to_disk(other / "saved")
    for task in [*local_tasks(tmp_path / "other"), *local_tasks(data_root, ["mine"])]:
        load(task)
        assert task.dataset["test"].to_list() == rows


def test_one_split_in_two_files_is_refused(data_root):
    (data_root / "sts/mine/test.parquet").write_bytes(b"")
    with pytest.raises(InputError, match=r"test\.jsonl and test\.parquet are one split twice"):
        local_tasks(data_root)


def test_classification_without_a_test_file_uses_val_else_holds_rows_out(data_root, write, caplog):
    (task,) = local_tasks(data_root, ["colours"])
    with caplog.at_level(logging.INFO):
        load(task)
    assert "one row in 5 of each label is held out" in caplog.text
    train, test = task.dataset["train"], task.dataset["test"]
    assert (len(train), len(test)) == (48, 12)
    assert sorted(test["label"]) == [0] * 4 + [1] * 4 + [2] * 4
    (again,) = local_tasks(data_root, ["colours"])
    load(again)
    assert again.dataset["test"].to_list() == test.to_list()

    write(data_root / "classification/colours/val.jsonl", [{"text": "red house", "label": "red"}])
    (task,) = local_tasks(data_root, ["colours"])
    load(task)
    assert task.eval_splits == ["val"]
    assert (len(task.dataset["train"]), len(task.dataset["val"])) == (60, 1)


def test_labels_are_numbered_in_the_order_of_their_values(data_root, write):
    rows = [{"text": f"word {label}", "label": label} for label in (10, 9, 1)]
    for split in ("train", "test"):
        write(data_root / f"classification/numbers/{split}.jsonl", rows)
    (task,) = local_tasks(data_root, ["numbers"])
    load(task)
    assert task.dataset["test"]["label"][:] == [2, 1, 0]


PAIR = '{"sentence1": "a", "sentence2": "b", "score": 1}'
JUDGED = '{"query_id": "q1", "corpus_id": "d1", "score": 1}'
QRELS = "retrieval/find/qrels.jsonl"


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("sts/mine/test.jsonl", '{"sentence1": "a", "score": 1}', ":31: field 'sentence2' is missing"),
        ("sts/mine/test.jsonl", PAIR.replace('"b"', '" "'), ":31: 'sentence2' is an empty text"),
        ("sts/mine/test.jsonl", PAIR.replace("1}", '"x"}'), ":31: 'score' must be a number, got str: 'x'"),
        ("sts/mine/test.jsonl", "{oops", ":31"),
        ("pairs/twins/dev.jsonl", PAIR.replace('score": 1', 'label": 2'),
         ":31: 'label' must be 0 or 1, got int: '2'"),
        ("classification/colours/train.jsonl", '{"text": "a", "label": [1]}',
         r":61: 'label' must be a text or a whole number, got list: '\[1\]'"),
        ("retrieval/find/corpus.jsonl", '{"id": "d3", "text": "a"}',
         r":41: has the id 'd3' of .*corpus\.jsonl:4\."),
        (QRELS, JUDGED.replace("1}", "0.5}"), ":21: 'score' must be a whole number, got float: '0.5'"),
        ("sts/mine/test.jsonl", None, ": no rows"),
        ("retrieval/find/corpus.jsonl", None, ": no rows"),
        (QRELS, None, "no query has a relevant document"),
    ],
)  # fmt: skip
def test_a_bad_row_or_an_empty_file_is_named(data_root, file, line, message):
    text = (data_root / file).read_text("utf-8") + f"{line}\n" if line else ""
    (data_root / file).write_text(text, "utf-8")
    (task,) = local_tasks(data_root, [file.split("/")[1]])
    where = re.escape(file.split("/")[2]) if message.startswith(":") else ""
    with pytest.raises(InputError, match=where + message):
        load(task)


def test_official_data_that_cannot_be_reached_say_what_to_do(monkeypatch):
    (task,) = official_tasks(["STS12"])

    def fail(**_):
        raise ConnectionError("no route")

    monkeypatch.setattr(task, "load_data", fail)
    with pytest.raises(
        InputError, match=r"task STS12: its data 'mteb/sts12-sts' cannot be loaded .*no route.*internet"
    ):
        load(task)
