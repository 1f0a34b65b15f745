import logging

import pytest
from tasks import swept

from embedtrain.evaluation.catalogue.official.tasks import official, official_names, parts_of
from embedtrain.evaluation.catalogue.presets import PRESETS
from embedtrain.evaluation.catalogue.tasks import find_tasks, load
from embedtrain.files.scores import main_scores
from embedtrain.types import Cell, InputError


def names(tasks):
    return [task.metadata.name for task in tasks]


def test_benchmarks_give_their_tasks_as_they_fix_them():
    tasks = {task.metadata.name: task for task in find_tasks(["MTEB(eng, v2)"])}
    assert len(tasks) == 41
    assert tasks["STS22.v2"].hf_subsets == ["en"]
    assert len(find_tasks(["NanoBEIR"])) == 13
    assert names(find_tasks(["MTEB(eng)"])) == list(tasks)  # an alias


def test_evaluating_one_copy_of_a_benchmark_leaves_the_next_alone():
    (first, *_), (again, *_) = official("NanoBEIR"), official("NanoBEIR")
    first.data_loaded = True
    first.filter_eval_splits(["other"])
    assert (again.data_loaded, list(again.eval_splits)) == (False, ["train"])


def test_names_may_be_mixed_and_each_task_comes_once():
    found = names(find_tasks(["STSBenchmark", "MTEB(eng, v2)", "STS12"]))
    assert len(found) == len(set(found)) == 41
    assert found[0] == "STSBenchmark"


def test_every_preset_is_made_of_tasks_mteb_has():
    sizes = {name: len(find_tasks([name])) for name in PRESETS}
    assert sizes == {"dev": 4, "quick": 25, "full": 41}
    assert all(set(task.eval_splits) <= {"validation", "dev"} for task in find_tasks(["dev"]))


def test_smoke_is_every_text_task_of_the_mock_grid():
    from mteb.mocks import ALL_MOCK_TASK_TEST_GRID as GRID

    wanted = {task.metadata.name for task in GRID if task.metadata.modalities == ["text"]}
    assert set(names(find_tasks(["smoke"]))) == wanted


def test_a_split_may_be_named():
    (task,) = find_tasks(["STSBenchmark:validation"])
    assert list(task.eval_splits) == ["validation"]
    (task,) = find_tasks(["STSBenchmark", "STSBenchmark:validation"])
    assert list(task.eval_splits) == ["test", "validation"]


def test_languages_keep_the_subsets_that_hold_any_of_them():
    (task,) = find_tasks(["MassiveIntentClassification"], languages=["deu"])
    assert task.hf_subsets == ["de"]
    german = find_tasks(["MTEB(Europe, v1)"], languages=["deu"])
    assert 0 < len(german) < 73
    assert all("deu" in task.languages for task in german)


@pytest.mark.parametrize(
    ("wanted", "languages", "message"),
    [
        (["STS12"], ["deu"], "STS12 has nothing in deu; it has eng"),
        (["STS12"], ["german"], r"languages=\['german'\]: Invalid language code: german; give three letters"),
        (["Mteb(eng,v2)"], None, r"no task 'Mteb\(eng,v2\)'; nearest: MTEB\(eng, v2\)"),
        (["quikc"], None, "nearest: quick"),
        (["MIEB(lite)"], None, r"MIEB\(lite\): 51 of its 51 tasks, such as \w+, need image"),
        (["Caltech101"], None, "Caltech101: it needs image, and an embedding model of text reads text only"),
        (["STS22.v2", "MTEB(eng, v2)"], None, "STS22.v2 is asked for twice, with the subsets"),
    ],
)
def test_what_cannot_be_evaluated_is_said(wanted, languages, message):
    with pytest.raises(InputError, match=message):
        find_tasks(wanted, languages=languages)


def test_aggregated_and_superseded_tasks_are_said_to_be(caplog):
    with caplog.at_level(logging.WARNING):
        parts = find_tasks(["CQADupstackRetrieval", "STSBenchmark"])
    assert len(parts) == 13
    assert "CQADupstackRetrieval is the mean of 12 tasks, each of which is evaluated" in caplog.text
    assert "STSBenchmark is superseded by STSBenchmark.v2" in caplog.text
    assert not any(task.is_aggregate for task in find_tasks(["BEIR"]))
    assert parts_of(parts[0]) == [parts[0]]


def test_every_name_that_is_offered_is_known():
    assert {"smoke", "dev", "STS12", "NanoBEIR", "MTEB(eng)"} <= set(official_names())
    assert official("nothing of the kind") is None


def test_a_score_is_of_the_languages_asked_for_whatever_was_scored_before(make_encoder, tmp_path, write):
    (task,) = find_tasks(["STS17"])
    repo = tmp_path / "root" / task.metadata.dataset["path"]  # a folder that says no revision
    rows = [
        {"sentence1": f"a{n} b", "sentence2": f"a{n % 3} b", "score": n % shift, "lang": name}
        for shift, name in ((2, "en-en"), (5, "es-es"))
        for n in range(12)
    ]
    write(repo / "test.jsonl", rows)

    def score(folder, subsets):
        (task,) = find_tasks(["STS17"], tmp_path / "root")
        task.filter_languages(None, hf_subsets=subsets)
        return main_scores(swept(make_encoder(), [task], [Cell(1, 8)], tmp_path / folder))[0].value

    both, alone = score("first", ["en-en", "es-es"]), score("second", ["en-en"])
    assert alone != both
    assert score("first", ["en-en"]) == alone
    assert score("second", ["en-en", "es-es"]) == both


def test_every_mock_task_loads():
    for task in find_tasks(["smoke"]):
        load(task)
        assert task.data_loaded, task.metadata.name
