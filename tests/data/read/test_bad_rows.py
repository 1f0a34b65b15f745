import json
import logging
import multiprocessing

import pytest

from embedtrain.data.read.bad_rows import BadRows
from embedtrain.data.read.sources import read_examples
from embedtrain.files.records import Raw
from embedtrain.types import InputError

GOOD = b'{"query": "q%d", "positive": "p"}'


def write(path, *lines):
    path.write_bytes(b"\n".join(line % n if b"%d" in line else line for n, line in enumerate(lines)) + b"\n")
    return path


def reports(folder):
    return [json.loads(line) for line in (folder / "bad_rows.jsonl").read_text().splitlines()]


def bad(number, reason="x"):
    return Raw(f"f:{number}", number, b"{"), InputError(f"f:{number}: {reason}")


def test_the_first_bad_row_is_an_error_unless_said_otherwise(tmp_path):
    path = write(tmp_path / "a.jsonl", GOOD, b"{", GOOD)
    for bad_rows in (None, BadRows(), BadRows("error", tmp_path / "out")):
        with pytest.raises(InputError, match=r"a\.jsonl:2: not valid JSON"):
            read_examples(path, bad_rows=bad_rows)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("policy", ["skip", "quarantine"])
def test_bad_rows_are_left_out_and_reported_with_place_and_reason(tmp_path, policy, caplog):
    path = write(
        tmp_path / "a.jsonl", GOOD, b"{", b'{"query": "", "positive": "p"}', GOOD, b'{"query": "\xff"}', b"3"
    )
    bad_rows = BadRows(policy, tmp_path / "out")
    assert [example.query for example in read_examples(path, bad_rows=bad_rows)] == ["q0", "q3"]
    found = reports(tmp_path / "out")
    assert [entry["where"] for entry in found] == [f"{path}:{line}" for line in (2, 3, 5, 6)]
    for entry, reason in zip(
        found, ("not valid JSON", "empty text", "not UTF-8", "JSON object"), strict=True
    ):
        assert reason in entry["reason"]
    with caplog.at_level(logging.WARNING):
        summary = bad_rows.summary()
    assert (summary.rows, summary.places) == (4, 4)
    assert summary.first == tuple(entry["reason"] for entry in found[:3])
    assert "4 rows are left out" in caplog.text
    assert found[2]["reason"] in caplog.text
    assert found[3]["reason"] not in caplog.text


def test_quarantined_rows_can_be_repaired_and_read_again(tmp_path):
    path = write(tmp_path / "a.jsonl", GOOD, b'{"query": "caf\xe9", "positive": "p"}\r', b'{"query": "q"')
    read_examples(path, bad_rows=BadRows("quarantine", tmp_path / "out"))
    kept = tmp_path / "out" / "quarantine.jsonl"
    assert kept.read_text() == '{"query": "caf\\xe9", "positive": "p"}\n{"query": "q"\n'
    assert [entry["kept"] for entry in reports(tmp_path / "out")] == ["whole", "whole"]
    kept.write_text(kept.read_text().replace("\\xe9", "é").replace('"q"', '"q", "positive": "p"}'))
    assert [example.query for example in read_examples(kept)] == ["café", "q"]


def test_of_a_huge_line_only_the_beginning_is_kept(tmp_path):
    huge = b'{"query": "' + b"x" * 500_000 + b'", "positive": "p"}'
    path = write(tmp_path / "a.jsonl", huge, GOOD)
    bad_rows = BadRows("quarantine", tmp_path / "out", max_line=100_000)
    assert [example.query for example in read_examples(path, bad_rows=bad_rows)] == ["q1"]
    (entry,) = reports(tmp_path / "out")
    assert "the line has 500,030 bytes, more than the 100,000" in entry["reason"]
    assert entry["kept"] == "beginning"
    assert (tmp_path / "out" / "quarantine.jsonl").stat().st_size == 65_537
    assert len(read_examples(path)) == 2


def test_a_place_is_reported_once_whoever_finds_it_and_also_after_a_restart(tmp_path):
    one, other = BadRows("skip", tmp_path), BadRows("skip", tmp_path)
    one.add(*bad(1))
    other.add(*bad(1))
    other.add(*bad(2))
    one.add(*bad(2))
    assert [entry["where"] for entry in reports(tmp_path)] == ["f:1", "f:2"]
    again = BadRows("skip", tmp_path)
    again.add(*bad(2))
    again.add(*bad(3))
    for bad_rows in (one, other, again):
        assert bad_rows.summary()[:2] == (3, 3)


def add_many(folder, shift):
    bad_rows = BadRows("quarantine", folder)
    for number in range(100):
        bad_rows.add(*bad((number * 7 + shift) % 100))


def test_processes_that_report_at_once_lose_and_repeat_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=add_many, args=(tmp_path, shift)) for shift in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert sorted(entry["where"] for entry in reports(tmp_path)) == sorted(f"f:{n}" for n in range(100))
    assert len((tmp_path / "quarantine.jsonl").read_text().splitlines()) == 100
    assert BadRows("skip", tmp_path).summary().rows == 100


def test_a_report_that_a_kill_cut_off_is_continued(tmp_path):
    BadRows("skip", tmp_path).add(*bad(1))
    with (tmp_path / "bad_rows.jsonl").open("ab") as file:
        file.write(b'{"where": "f:2", "rea')
    bad_rows = BadRows("skip", tmp_path)
    bad_rows.add(*bad(2))
    assert bad_rows.summary().rows == 2
    last = (tmp_path / "bad_rows.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["where"] == "f:2"


def test_damage_counts_as_the_rows_that_it_stands_for(tmp_path):
    bad_rows = BadRows("skip", tmp_path)
    bad_rows.add(Raw("f: rows 3-12", 3, InputError("gone"), rows=10), InputError("gone"))
    assert bad_rows.summary() == (10, 1, ("gone",))


def test_without_bad_rows_nothing_is_written_or_said(tmp_path, caplog):
    bad_rows = BadRows("skip", tmp_path / "out")
    assert len(read_examples(write(tmp_path / "a.jsonl", GOOD, GOOD), bad_rows=bad_rows)) == 2
    assert bad_rows.summary() == (0, 0, ())
    assert not (tmp_path / "out").exists()
    assert caplog.text == ""


def test_a_dataset_without_any_row_to_use_is_an_error_under_every_policy(tmp_path):
    path = write(tmp_path / "a.jsonl", b"{", b"}")
    with pytest.raises(InputError, match=r"a\.jsonl: none of its 2 rows can be used"):
        read_examples(path, bad_rows=BadRows("skip", tmp_path / "out"))


def test_the_second_row_of_an_id_names_both_places(tmp_path):
    rows = [
        b'{"id": %s, "query": "q", "positive": "p"}' % id for id in (b"1", b'"1"', b"1", b"null", b"null")
    ]
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(rows))
    with pytest.raises(InputError, match=r"a\.jsonl:3: has the id 1 of .*a\.jsonl:1"):
        read_examples(path)
    assert len(read_examples(path, bad_rows=BadRows("skip", tmp_path))) == 4


def test_the_first_row_decides_whether_rows_have_scores(tmp_path):
    scored = b'{"query": "q", "positive": "p", "score": 1}'
    path = write(tmp_path / "a.jsonl", GOOD, scored, GOOD)
    examples = read_examples(path, bad_rows=BadRows("skip", tmp_path))
    assert [example.where for example in examples] == [f"{path}:1", f"{path}:3"]
    assert "a.jsonl:2 is a scored pair and" in reports(tmp_path)[0]["reason"]


def test_settings_that_make_no_sense_are_refused(tmp_path):
    with pytest.raises(InputError, match="on_bad_row must be one of error, skip, quarantine, got 'ignore'"):
        BadRows("ignore")
    with pytest.raises(InputError, match="on_bad_row=skip needs a folder"):
        BadRows("skip")
    with pytest.raises(InputError, match="max_line must be 1 byte or more, got 0"):
        BadRows(max_line=0)


def test_an_entry_of_an_array_that_is_no_row_and_no_text_that_can_be_written(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'["q\\ud800", {"query": "q", "positive": "p"}]')
    bad_rows = BadRows("quarantine", tmp_path / "out")
    assert [example.query for example in read_examples(path, bad_rows=bad_rows)] == ["q"]
    assert [entry["where"] for entry in reports(tmp_path / "out")] == [f"{path}: row 1"]
    assert bad_rows.left_out == 1
