"""What the doctor says of rows with known defects."""

import json

import pytest
from data_modules import example

from embedtrain.data.order.mixture import Dataset
from embedtrain.data.order.run_plan import Part
from embedtrain.data.read.sources import Prompts
from embedtrain.data.stores.memory import MemoryRows
from embedtrain.doctor.contamination import contamination_findings, overlap_finding, training_places
from embedtrain.doctor.duplicates import duplicate_findings, false_negative_findings
from embedtrain.doctor.findings import Finding, counted, percent, worst
from embedtrain.doctor.lengths import histogram, length_findings, suggested
from embedtrain.doctor.rows import Sample, bad_row_finding, dataset_findings, dealt, reason_kind, sampled
from embedtrain.evaluation.catalogue.texts import Placed
from embedtrain.model.inputs.tokenizer import TextTokenizer


def row(number, *texts, **more):
    return example(*texts, where=f"rows.jsonl:{number}", **more)


def sample(*rows):
    return Sample(rows, True)


CLEAN = [row(n, f"query {n}", [f"positive {n}"], [f"negative {n}"]) for n in range(200)]


@pytest.fixture(scope="module")
def tokenizer(tiny_bert):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_bert)


@pytest.mark.parametrize("check", [duplicate_findings, false_negative_findings])
def test_clean_rows_have_no_finding(check):
    assert {finding.level for finding in check(sample(*CLEAN))} == {"ok"}


def test_exact_and_near_duplicates_are_counted_apart():
    same = row(300, "query 7", ["positive 7"], ["negative 7"])
    near = row(301, " Query  8", ["POSITIVE 8"], ["negative 8"])
    exact, alike, queries, itself = duplicate_findings(sample(*CLEAN, same, near))
    assert (exact.facts["rows"], alike.facts["rows"]) == (1, 1)
    assert exact.level == alike.level == "note"  # 1 of 202
    assert exact.examples == ("rows.jsonl:300 = rows.jsonl:7: 'query 7'",)
    assert "rows.jsonl:301 = rows.jsonl:8" in alike.examples[0]
    assert queries.facts == {"queries": 201, "rows_of_an_earlier_query": 1}
    assert itself.level == "ok"
    many = duplicate_findings(sample(*CLEAN, *CLEAN[:10]))
    assert next(many).level == "warning"


def test_the_same_row_under_another_task_or_score_is_no_duplicate():
    rows = [row(1, "a", ["b"]), row(2, "a", ["b"], task="u"), row(3, "a", ["b"], score=1.0, task="v")]
    assert next(duplicate_findings(sample(*rows, row(4, "a", ["b"], score=0.5, task="v")))).facts["rows"] == 0


def test_a_query_as_its_own_positive():
    found = list(duplicate_findings(sample(*CLEAN, row(9, "a cat", ["dog", "A  cat"]))))[-1]
    assert (found.level, found.examples) == ("warning", ("rows.jsonl:9: 'a cat'",))
    scored = list(duplicate_findings(sample(row(1, "a", ["a"], score=1.0))))[-1]
    assert scored.level == "ok"  # a scored pair of equal texts is right


def test_positives_among_the_negatives():
    rows = [
        row(1, "q", ["p", "r"], ["x", "p"]),  # own, to the letter
        row(2, "w", ["s"], [" S "]),  # own, but for case and space
        row(3, "Q", ["t"], ["r", "y"]),  # of row 1, which has the same query
        row(4, "z", ["u"], ["Z"]),  # the query
        row(5, "other", ["v"], ["p"]),  # a positive of another query: fine
    ]
    own, near, elsewhere, query = false_negative_findings(sample(*rows))
    assert [f.facts["negatives"] for f in (own, near, elsewhere, query)] == [1, 1, 1, 1]
    assert [f.level for f in (own, near, elsewhere, query)] == ["error", "warning", "warning", "warning"]
    assert own.examples == ("rows.jsonl:1: 'p'",)
    assert elsewhere.examples == ("rows.jsonl:3: 'r' is a positive in rows.jsonl:1",)
    assert own.facts["of"] == 7


def part(**changes):
    usual = {"task": "t", "rows": 200, "batch_size": 10, "batches": 20, "seen": 200, "left_out": 0}
    return Part(**(usual | changes))


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({}, "ok"),
        ({"batches": 0, "seen": 0}, "warning"),
        ({"left_out": 50}, "note"),
        ({"seen": 200 * 21}, "note"),
    ],
)
def test_a_dataset_is_described(changes, level):
    rows = [row(n, "q", ["p"], ["n"] * n) for n in range(3)]
    found = list(dataset_findings([part(**changes), part(task="u")], sample(*rows)))
    assert [f.level for f in found] == [level, "ok"]
    assert found[0].facts["negatives"] == {"min": 0, "median": 1, "max": 2}
    assert found[1].facts["looked_at"] == 0


def test_bad_rows_are_counted_by_reason():
    bad = "query must be text, got"
    lines = [{"where": f"a.jsonl:{n}", "reason": f"a.jsonl:{n}: {bad} {n}", "rows": 1} for n in (1, 22)]
    lines.append({"where": "b.gz:7", "reason": "b.gz:7: the file is cut off", "rows": 5})
    found = bad_row_finding(lines, "error")
    assert found.level == "error"
    assert found.facts["bad_rows"] == 7
    assert sorted(found.facts["reasons"].values()) == [2, 5]
    assert found.examples[0].startswith("a.jsonl:1: ")
    assert bad_row_finding(lines, "skip").level == "warning"
    assert bad_row_finding([], "error").level == "ok"
    assert reason_kind("f:1", "f:1: 'x y' is 12 of 3.5") == "… is … of …"


def test_lengths_truncation_and_what_would_do(tokenizer):
    rows = [row(n, "cat " * (n % 4 + 1), ["dog"], ["bird " * 20]) for n in range(40)]
    process = TextTokenizer(tokenizer, 8)
    query, positive, negative = length_findings(sample(*rows), process, 64)
    assert query.facts["histogram"] == {"<=8": 4}  # distinct ones
    assert (query.level, positive.level, negative.level) == ("ok", "ok", "warning")
    assert (negative.facts["truncated"], negative.facts["tokens"], negative.facts["tokens_lost"]) == (
        1,
        22,
        14,
    )
    assert negative.facts["suggested_max_length"] == 24
    assert "max_length=24" in negative.cure
    assert negative.examples[0].startswith("rows.jsonl:0: 22 tokens")
    assert "Split" in list(length_findings(sample(*rows), process, 8))[-1].cure


def test_a_prompt_counts_and_is_that_of_the_row(tokenizer):
    plain = TextTokenizer(tokenizer, 64, prompts={"query": "the man is "})
    own = row(1, "cat", ["dog"])._replace(prompts=Prompts(query="a "))
    lengths = [
        next(length_findings(sample(item), plain, 64)).facts["tokens"] for item in (row(1, "cat", ["d"]), own)
    ]
    assert lengths == [6, 4]


def test_texts_of_which_the_model_sees_nothing(tokenizer):
    found = list(
        length_findings(
            sample(row(1, " \t ", ["dog"]), row(2, "cat", ["日本 語"])), TextTokenizer(tokenizer, 8), 64
        )
    )
    empty = [f for f in found if f.level == "error"]
    assert [f.examples for f in empty] == [("rows.jsonl:1: ''",)]
    assert any("unknown to the tokenizer" in f.message and f.facts["part"] == "positive" for f in found)


def test_histogram_and_suggestion():
    assert histogram([1, 8, 9, 16, 17, 100]) == {"<=8": 2, "<=16": 2, "<=32": 1, "<=128": 1}
    assert suggested([5] * 99 + [500], None) == 504
    assert suggested([5] * 200 + [500], None) == 8
    assert suggested([500], 256) == 256


def test_overlap_is_counted_by_table_and_named_by_place():
    places = training_places(sample(row(1, "What is rain?", ["water"], ["fire"])))
    tables = [
        Placed("test queries", ["what  is RAIN?", "what is snow?"]),
        Placed("test corpus", ["water", "sand", "Fire", "stone"]),
        Placed("test titles", []),
    ]
    found = overlap_finding("task", tables, places, 0.5)
    assert found.facts == {"test queries": {"common": 1, "of": 2}, "test corpus": {"common": 2, "of": 4}}
    assert found.level == "warning"
    assert found.examples[0] == "test queries: 'what is RAIN?' is the query of rows.jsonl:1"
    assert overlap_finding("task", tables, places, 0.6).level == "note"
    assert overlap_finding("task", tables[2:], places, 0.0).level == "ok"
    assert "at least" in overlap_finding("task", tables, places, 0.5, whole=False).message


def test_overlap_with_local_tasks_and_one_that_is_not_there(small_data, monkeypatch):
    queries = (small_data / "retrieval/find/queries.jsonl").read_text("utf-8").splitlines()
    seen = row(1, json.loads(queries[0])["text"].upper(), ["p"])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = list(contamination_findings(sample(seen), ["local", "nosuch"], str(small_data), None, 0.01))
    assert [f.level for f in found] == ["warning", "error"]
    assert found[0].facts["default test queries"]["common"] == 1
    assert "nosuch" in found[1].message
    missing = list(contamination_findings(sample(seen), ["SciFact"], str(small_data), None, 0.01))
    assert [f.level for f in missing] == ["warning"]
    assert "SciFact" in missing[0].message
    assert next(contamination_findings(sample(seen), [], None, None, 0.01)).level == "note"


def test_a_sample_takes_of_all_datasets_and_says_so():
    datasets = [
        Dataset(MemoryRows([row(n, f"{task} {n}", ["p"], task=task) for n in range(count)], task))
        for task, count in (("a", 5), ("b", 5_000), ("c", 5_000))
    ]
    found = sampled(datasets, 101)
    assert not found.whole
    assert "101 sampled rows" in found.said
    counts = [sum(example.task == task for example in found.examples) for task in "abc"]
    assert counts == [5, 48, 48]
    assert len({example.query for example in found.examples}) == 101
    assert sampled(datasets[:1], 101).whole


def test_shares_are_dealt_from_the_smallest():
    assert dealt([10, 1, 10], 9) == [4, 1, 4]
    assert dealt([1, 2], 9) == [1, 2]


def test_levels():
    found = [Finding("a", "ok", "x"), Finding("a", "warning", "y"), Finding("a", "note", "z")]
    assert worst(found) == "warning"
    assert worst([]) == "ok"
    assert counted(found) == {"ok": 1, "note": 1, "warning": 1, "error": 0}
    assert percent(1, 3_000) == "0.033 %"


def test_the_stages_that_contrast_pairs_are_known_by_name():
    from embedtrain.cli.launch import settings_from
    from embedtrain.doctor.examine import contrastive_stages
    from embedtrain.types import InputError

    words = ["name=x", "data.train=a.jsonl", "backbone=minilm"]
    stages = "stages=[{name: first, step: masked}, {name: pairs}, {name: more, loss: cosent}]"
    found = contrastive_stages(settings_from("doctor", [*words, stages]))
    assert list(found) == ["pairs", "more"]
    assert found["more"].loss.target.endswith("CoSENT")
    with pytest.raises(InputError, match="this run has another `step`"):
        contrastive_stages(settings_from("doctor", [*words, "step=masked"]))
