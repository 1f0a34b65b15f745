"""A sweep spread over processes and ranks, stopped and failing: always the scores of one process."""

import multiprocessing
import os
import pickle
import random
import signal
import sys
import time
from pathlib import Path

import pytest
from processes import LIMIT, module_at, wait_until
from tasks import local_tasks, official_tasks, swept

from embedtrain.evaluation.sweeping import scoring
from embedtrain.evaluation.sweeping.sweep import IncompleteError, characters, longest_first
from embedtrain.evaluation.sweeping.workers import forked, usable_workers
from embedtrain.files.scores import read_scores
from embedtrain.types import Cell, InputError

SCRIPT = Path(__file__).with_name("sweep_ranks.py")
ranks = module_at(SCRIPT)
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="scores in processes on Linux only")


def run_sweep(encoder, root, folder, names=None, **changes):
    return swept(encoder, root, ranks.CELLS, folder, names=names, **changes)


@linux
def test_processes_give_the_scores_of_one(make_encoder, data_root, tmp_path, monkeypatch):
    one = run_sweep(make_encoder(), data_root, tmp_path / "one", workers=1)
    monkeypatch.setattr(scoring, "FORKS_PAY", 0.0)
    asked = []
    monkeypatch.setattr(scoring, "forked", lambda *work: asked.append(len(work[1])) or forked(*work))
    assert run_sweep(make_encoder(), data_root, tmp_path / "two", workers=2) == one
    assert asked == [len(ranks.CELLS) - 2] * 4
    files = [(tmp_path / name / "scores.jsonl").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]
    trees = [{p.relative_to(tmp_path / n) for p in (tmp_path / n).rglob("*.json")} for n in ("one", "two")]
    assert trees[0] == trees[1]


@linux
def test_a_tiny_task_is_not_worth_a_process(make_encoder, data_root, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "forked", None)
    assert run_sweep(make_encoder(), data_root, tmp_path, names=["mine"], workers=4)


@linux
def test_results_come_in_order_and_errors_come_home():
    def work(item):
        time.sleep(0.05 if item == 0 else 0)
        if item == 3:
            raise InputError("give another")
        if item == 4:
            raise KeyError("lost")
        if item == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return item, os.getpid()

    found = list(forked(work, [0, 1, 2], 2))
    assert [item for item, _ in found] == [0, 1, 2]
    assert len({result[1] for _, result in found} | {os.getpid()}) == 4
    with pytest.raises(InputError, match="give another"):
        list(forked(work, [1, 3], 2))
    with pytest.raises(RuntimeError, match=r"(?s)KeyError: 'lost'.*test_spread"):
        list(forked(work, [4], 2))
    with pytest.raises(
        RuntimeError, match="ended with status -9, perhaps for lack of memory; scoring_workers=1"
    ):
        list(forked(work, [5, 1], 1))


@linux
def test_children_do_not_outlive_their_parent(tmp_path):
    def child(item):
        (tmp_path / f"{item}").write_text(str(os.getpid()))
        time.sleep(LIMIT)

    parent = multiprocessing.get_context("fork").Process(target=lambda: list(forked(child, [0, 1], 2)))
    parent.start()
    wait_until(lambda: [bool(path.read_text()) for path in tmp_path.iterdir()] == [True, True])
    parent.kill()
    parent.join()
    pids = [int(path.read_text()) for path in tmp_path.iterdir()]
    wait_until(lambda: not any(_lives(pid) for pid in pids))


def _lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_number_of_processes_is_checked():
    assert usable_workers(1) == 1
    assert 1 <= usable_workers(None) <= 4
    with pytest.raises(InputError, match="scoring_workers must be at least 1, got 0"):
        usable_workers(0)


def test_two_ranks_write_the_files_of_one(on_ranks, data_root, tmp_path):
    alone = ranks.fake_encoder()
    names = ["mine", "find", "twins"]
    one = run_sweep(alone, data_root, tmp_path / "one", names=names)
    texts, scores = zip(*on_ranks(SCRIPT, "main", data_root, tmp_path, names), strict=True)
    assert scores == (one, one)
    assert (tmp_path / "out/scores.jsonl").read_bytes() == (tmp_path / "one/scores.jsonl").read_bytes()
    trees = [{p.relative_to(tmp_path / n) for p in (tmp_path / n).rglob("*.json")} for n in ("one", "out")]
    assert trees[0] == trees[1]
    assert sum(texts) == len(alone.texts)
    assert all(count < len(alone.texts) * 0.7 for count in texts)


def test_ranks_agree_on_a_task_that_fails(on_ranks, data_root, tmp_path, write):
    write(data_root / "sts/mine/test.jsonl", [{"sentence1": "a", "sentence2": "b", "score": "no"}])
    with pytest.raises(IncompleteError) as failed:
        run_sweep(ranks.fake_encoder(), data_root, tmp_path / "one", names=["mine", "twins"])
    results = on_ranks(SCRIPT, "main", data_root, tmp_path, ["mine", "twins"])
    assert [scores for _, scores in results] == [[str(failed.value)]] * 2
    assert (tmp_path / "out/scores.jsonl").read_bytes() == (tmp_path / "one/scores.jsonl").read_bytes()


@linux
def test_a_kill_at_any_moment_loses_no_cell_and_scores_none_twice(
    make_encoder, data_root, tmp_path, monkeypatch
):
    names = ["mine", "find"]
    begun = time.monotonic()
    whole = run_sweep(make_encoder(), data_root, tmp_path / "whole", names=names)
    seconds = time.monotonic() - begun
    monkeypatch.setattr(scoring, "FORKS_PAY", 0.0)
    folder, file = tmp_path / "out", tmp_path / "out/scores.jsonl"

    def go():
        run_sweep(make_encoder(), data_root, folder, names=names, workers=2)

    kept, draw, context = set(), random.Random(0), multiprocessing.get_context("fork")
    for _ in range(20):
        process = context.Process(target=go)
        process.start()
        process.join(draw.uniform(0.05, 0.4 * seconds))
        process.kill()
        process.join()
        lines = read_scores(file)
        assert len(set(lines)) == len(lines)
        assert set(lines) <= set(whole)
        assert kept <= set(lines)
        kept = set(lines)
    assert run_sweep(make_encoder(), data_root, folder, names=names) == whole
    assert file.read_bytes() == (tmp_path / "whole/scores.jsonl").read_bytes()
    assert not list((folder / "mteb").glob(".writing-*"))


def test_a_task_that_fails_is_named_and_others_are_scored(make_encoder, data_root, tmp_path, write, caplog):
    names = ["mine", "find"]
    whole = run_sweep(make_encoder(), data_root, tmp_path / "whole", names=names)
    good = (data_root / "sts/mine/test.jsonl").read_bytes()
    write(data_root / "sts/mine/test.jsonl", [{"sentence1": "a", "sentence2": "b", "score": "no"}])
    with pytest.raises(IncompleteError, match=r"(?s)1 of 2 tasks failed.*mine: .*'score' must be") as failed:
        run_sweep(make_encoder(), data_root, tmp_path / "out", names=names)
    others = [score for score in whole if score.task != "mine"]
    assert list(failed.value.scores) == others == read_scores(tmp_path / "out/scores.jsonl")
    assert [failure.task for failure in failed.value.failures] == ["mine"]
    assert "task mine failed" in caplog.text
    assert str(pickle.loads(pickle.dumps(failed.value))) == str(failed.value)
    (data_root / "sts/mine/test.jsonl").write_bytes(good)
    again = make_encoder()
    assert run_sweep(again, data_root, tmp_path / "out", names=names) == whole
    assert {role for role, _ in again.texts} == {"document"}


def test_a_full_disk_stops_the_sweep_and_says_what_to_do(make_encoder, data_root, tmp_path, full_disk):
    full_disk(scoring, "store")
    with pytest.raises(InputError, match="the disk is full; free some space and run the same command again"):
        run_sweep(make_encoder(), data_root, tmp_path / "out", names=["mine"])


def test_the_longest_task_comes_first_and_lines_as_asked(make_encoder, data_root, tmp_path, write):
    words = (f"red cat {n}" * 20 for n in range(30))
    rows = [{"sentence1": text, "sentence2": f"dog {n % 3}", "score": n % 5} for n, text in enumerate(words)]
    write(data_root / "sts/long/test.jsonl", rows)
    seen, names = [], ["mine", "long"]
    note = {"progress": lambda task, *_: seen.append(task)}
    scores = run_sweep(make_encoder(), data_root, tmp_path, names=names, **note)
    assert list(dict.fromkeys(seen)) == ["long", "mine"]
    assert list(dict.fromkeys(score.task for score in scores)) == ["mine", "long"]


def test_mteb_statistics_and_files_say_how_long_a_task_is(data_root):
    small, large = official_tasks(["STSBenchmark", "TRECCOVID"])
    assert 100_000 < characters(small) < 1_000_000 < characters(large)
    (mine,) = local_tasks(data_root, ["mine"])
    assert characters(mine) == (data_root / "sts/mine/test.jsonl").stat().st_size
    assert longest_first([mine, small, large]) == [large, small, mine]


def test_cells_that_do_not_exist_are_named(make_encoder, data_root, tmp_path):
    with pytest.raises(InputError, match=r"dtype must be one of float32, .*, got 'int4'"):
        swept(make_encoder(), data_root, [Cell(1, 4, "int4")], tmp_path)
