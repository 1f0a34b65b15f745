"""embedtrain-doctor as a person runs it: one clean run, and a planted defect of every kind."""

import json

import pytest
from small_runs import command, read_rows

from embedtrain.cli.launch import settings_from
from embedtrain.files.run_folder import RunFolder
from embedtrain.types import InputError

LONG = "cat dog bird " * 40  # 122 tokens where 64 are read


def run(words):
    """Exit status and report; the command is that of embedtrain-train."""
    try:
        command("doctor", *words)
    except SystemExit as left:
        return left.code
    return 0


def report(folder, name="x"):
    return json.loads((folder / f"{name}-doctor.json").read_text("utf-8"))


def of_check(found, check):
    return [item for item in found["findings"] if item["check"] == check]


def test_a_clean_run_has_no_error_and_leaves_no_trace(capsys, small_run, small_data, tmp_path):
    words = ["evaluation.tasks=[local]", f"evaluation.data_root={small_data}", "exports=[[2,16]]"]
    status = run([*small_run, *words, "name=x", f"output_root={tmp_path}"])
    found = report(tmp_path)
    assert status == 0, [item for item in found["findings"] if item["level"] == "error"]
    assert found["counts"]["error"] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["x-doctor.json"]
    checks = list(dict.fromkeys(item["check"] for item in found["findings"]))
    expected = "run, rows, duplicates, positives among the negatives, lengths, overlap with evaluation, model"
    assert checks == [*expected.split(", "), "negatives", "first loss", "memory", "speed"]
    shown = capsys.readouterr().out
    assert all(item["message"][:30] in shown for item in found["findings"])
    (negatives,) = of_check(found, "negatives")
    assert (negatives["facts"]["mean"], negatives["facts"]["min"]) == (7.0, 7)
    (loss,) = of_check(found, "first loss")
    assert loss["facts"]["expected"] == pytest.approx(loss["facts"]["ln_candidates"], abs=1e-5)
    (overlap,) = of_check(found, "overlap with evaluation")
    assert overlap["level"] == "ok"
    (memory,) = of_check(found, "memory")
    assert 0 < memory["facts"]["activations"] < memory["facts"]["total"] < memory["facts"]["available"]
    (speed,) = of_check(found, "speed")
    assert speed["facts"]["steps"] == 8
    assert speed["facts"]["seconds"] == pytest.approx(8 * speed["facts"]["seconds_per_step"])


@pytest.fixture(scope="module")
def defects(small_data, tmp_path_factory):
    """Rows with a defect of every kind in one file."""
    rows = read_rows(small_data / "train.jsonl")
    asked = read_rows(small_data / "retrieval/find/queries.jsonl")[0]["text"]
    rows[0] |= {"negatives": [rows[0]["positive"]]}  # its positive
    rows[1] |= {"negatives": [rows[2]["positive"]], "query": rows[2]["query"]}  # of another row of the query
    rows[3] = rows[4]  # twice
    rows[5] |= {"positive": rows[5]["query"].upper()}  # itself
    rows[6] |= {"query": asked}  # in the evaluation
    for number in range(7, 15):
        rows[number] |= {"positive": f"{number} {LONG}"}
    written = [json.dumps(row) for row in rows]
    written[20] = '{"query": "a cat", "positive": ""}'
    written[21] = '{"query": "a cat", "positive": '
    path = tmp_path_factory.mktemp("defects") / "train.jsonl"
    path.write_text("\n".join(written) + "\n", "utf-8")
    return path


def test_every_planted_defect_is_found(small_run, small_data, defects, tmp_path):
    words = [*small_run, f"data.train={defects}", "data.batch_size=32", "doctor.memory_gb=0.001"]
    words += ["evaluation.tasks=[local]", f"evaluation.data_root={small_data}", "loss.temperature=0.001"]
    words.append(f"doctor.out={tmp_path}/r.json")
    assert run([*words, "name=x", f"output_root={tmp_path}/runs"]) == 1
    found = json.loads((tmp_path / "r.json").read_text("utf-8"))
    assert not (tmp_path / "runs").exists()

    def level(check, part):
        (one,) = [item for item in of_check(found, check) if part in item["message"]]
        return one["level"], one["examples"]

    assert level("rows", "2 rows cannot be trained on")[0] == "error"
    assert [":21" in place or ":22" in place for place in level("rows", "cannot be trained on")[1]] == [
        True
    ] * 2
    assert level("duplicates", "1 of 62 rows repeat another row exactly")[0] == "warning"
    assert level("duplicates", "1 rows have their query as a positive")[0] == "warning"
    own, places = level("positives among the negatives", "1 of 2 negatives are a positive of their own row")
    assert own == "error"
    assert f"{defects}:1" in places[0] or "train.jsonl:1:" in places[0]
    assert level("positives among the negatives", "in another row of their query")[0] == "warning"
    assert level("lengths", "positive: ")[0] == "warning"
    assert level("overlap with evaluation", "find")[0] == "warning"
    assert level("first loss", " at L4_D32")[0] == "warning"
    assert level("memory", "a step needs about")[0] == "warning"


def test_a_finished_run_is_named_and_untouched(small_run, tmp_path):
    folder = RunFolder(tmp_path, "x")
    folder.prepare({}, {}, world_size=1)
    folder.release()
    folder.model.mkdir()
    before = list((tmp_path / "x").rglob("*"))
    words = [*small_run, "name=x", f"output_root={tmp_path}"]
    assert run(words) == 1
    (first, *_) = report(tmp_path)["findings"]
    assert (first["level"], "finished run" in first["message"]) == ("error", True)
    assert list((tmp_path / "x").rglob("*")) == before


def test_a_run_that_cannot_be_built_is_a_finding(small_run, tmp_path):
    words = [*small_run, "name=x", f"output_root={tmp_path}", "loss=cosent"]
    assert run(words) == 1
    last = report(tmp_path)["findings"][-1]
    assert (last["check"], last["level"]) == ("run", "error")
    assert "score" in last["message"]


def test_gradcache_ranks_rules_and_a_mixture(small_run, small_data, tiny_bert, tmp_path):
    train = f"data.train=[{small_data}/train.jsonl,{{source: {small_data}/validation.jsonl, batch_size: 4}}]"
    words = [
        *small_run,
        train,
        "gradcache=chunks",
        "negatives=gist",
        "guide=model",
        f"guide.path={tiny_bert}",
    ]
    words += ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "doctor.batch_rows=4"]
    assert run([*words, "name=x", f"output_root={tmp_path}"]) in (0, 1)
    found = report(tmp_path)
    assert "run" not in [item["check"] for item in found["findings"] if item["level"] == "error"]
    assert len([item for item in of_check(found, "negatives") if "rule" in item["facts"]]) == 2
    assert len(of_check(found, "first loss")) == 2
    (memory,) = of_check(found, "memory")
    assert memory["facts"]["sharing"] == 2
    assert memory["facts"]["guide"] > 0


def test_mistyped_keys_are_named():
    words = ["name=x", "data.train=rows.jsonl"]
    with pytest.raises(InputError, match=r"doctor: rows must be 2 or more, got 1"):
        settings_from("doctor", [*words, "doctor.rows=1"])
    settings = settings_from("doctor", [*words, "doctor.rows=7", "doctor.memory_gb=2"])
    assert (settings.doctor.rows, settings.doctor.memory_gb) == (7, 2.0)


def test_a_stream_is_sampled_and_the_report_says_so(small_run, small_data, tmp_path):
    words = [*small_run, f"data.train=[{{source: {small_data}/train.jsonl, stream: true}}]", "doctor.rows=20"]
    assert run([*words, "name=x", f"output_root={tmp_path}"]) == 0
    found = report(tmp_path)
    assert any("20 sampled rows" in item["message"] for item in of_check(found, "rows"))
    assert of_check(found, "duplicates")[0]["facts"]["of"] == 20
    assert sorted(path.name for path in tmp_path.iterdir()) == [".rows", "x-doctor.json"]
