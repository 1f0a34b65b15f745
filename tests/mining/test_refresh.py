"""Negatives mined inside a run: what batches carry, and that stopping changes nothing."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import send_signal, wait_until
from pytorch_lightning.callbacks import Callback
from small_runs import StopAfter, StopError, assert_equal_bits, compose, train, weights

from embedtrain.files.atomic import UNFINISHED
from embedtrain.mining.refresh import Refresh, RefreshNegatives, Revised, texts_of
from embedtrain.mining.selection import Selection
from embedtrain.mining.tables import Table, path_of, read_table, steps_of, write_table
from embedtrain.rules import Abs
from embedtrain.run.run import Run
from embedtrain.types import InputError

MINING = """mining=refresh mining.every=3 mining.delay=2 mining.selection.per_row=2
    mining.selection.rules.0.perc_pos=1.0 trainer.max_steps=11 trainer.checkpoint_every_n_steps=1
    trainer.val_check_interval=100"""


class Seen(Callback):
    """How many documents each step had."""

    def __init__(self):
        self.documents = {}

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.documents[trainer.global_step] = len(batch.links.docs)


@pytest.fixture
def words(small_run, tmp_path):
    return [*small_run, *MINING.split(), f"output_root={tmp_path}"]


def test_batches_carry_what_was_mined_and_stopping_changes_nothing(words, tmp_path):
    seen = Seen()
    train([*words, "name=whole"], seen)
    assert {step for step, count in seen.documents.items() if count == 8} == {0, 1, 2, 3, 4}
    assert all(seen.documents[step] > 8 for step in range(5, 11)), "from step 3 + 2 on"
    assert steps_of(tmp_path / "whole/mined") == [3, 6], "that of 9 would never be used"
    expected = weights(tmp_path / "whole")
    for stop in (3, 4, 7):
        name = f"stopped_{stop}"
        with pytest.raises(StopError):
            train([*words, f"name={name}"], StopAfter(stop))
        mined = tmp_path / name / "mined"
        if stop == 4:
            unfinished = f".step_6.npz.5eed{UNFINISHED}"
            for left in ("step_6.npz", unfinished):  # of a run that went further
                (mined / left).write_bytes(b"half")
        train([*words, f"name={name}"])
        assert_equal_bits(weights(tmp_path / name), expected)
        for step in (3, 6):
            assert len(list(mined.iterdir())) == 2
            assert path_of(mined, step).read_bytes() == path_of(tmp_path / "whole/mined", step).read_bytes()
    train([word for word in words if not word.startswith("mining")] + ["name=without"])
    plain_run = weights(tmp_path / "without")
    assert any(not torch.equal(plain_run[key], expected[key]) for key in expected), "negatives matter"


def test_a_kill_and_workers_that_make_batches_ahead(processes, words, tmp_path):
    more = [*words, "mining.delay=4", "data.num_workers=1", "trainer.max_steps=16"]
    process = processes.command("train", [*more, "name=killed"])
    wait_until(path_of(tmp_path / "killed/mined", 6).exists, process)
    assert send_signal(process, signal.SIGKILL) == -signal.SIGKILL
    train([*more, "name=killed"])
    train([*more, "name=whole"])
    assert_equal_bits(weights(tmp_path / "killed"), weights(tmp_path / "whole"))


@pytest.fixture
def rows(example):
    return [example(f"q{n}", [f"p{n}"], [f"own{n}"], task=f"t{n % 2}") for n in range(12)]


def refresher(rows, teacher, folder, **settings):
    texts = texts_of(enumerate(rows))
    refresh = Refresh(**{"selection": Selection(per_row=3, depth=5), "every": 10, "delay": 2} | settings)
    seen = []

    def encode(given, role, prompt):
        seen.append((role, list(given)))
        return teacher.embed(given, role, [prompt] * len(given))

    return RefreshNegatives(refresh, texts, encode, folder, seed=1), texts, refresh, seen


def test_rows_take_the_newest_negatives_that_are_old_enough(rows, teacher, tmp_path):
    callback, texts, refresh, _ = refresher(rows, teacher, tmp_path)
    callback.mine(10)
    revise = Revised(tmp_path, refresh, texts, accumulate=2, ahead=2)
    for step in (0, 10, 23):
        assert revise(step, [3, 0], [rows[3], rows[0]]) == [rows[3], rows[0]]
    changed = revise(24, [3, 0], [rows[3], rows[0]])
    for old, new in zip((rows[3], rows[0]), changed, strict=True):
        assert new[:2] == old[:2]
        task = int(old.task[1])
        own = {f"{kind}{n}" for n in range(task, 12, 2) for kind in ("p", "own")} - set(old.positives)
        query = teacher.embed([old.query], "query").astype(np.float16)[0]
        texts_left = sorted(own)
        scores = teacher.embed(texts_left, "document").astype(np.float16).astype(float) @ query.astype(float)
        assert list(new.negatives) == [texts_left[n] for n in np.argsort(-scores)[:3]]
    with pytest.raises(InputError, match=r"step_20.npz cannot be read .*It holds the negatives mined at"):
        revise(44, [3], [rows[3]])


def test_rows_for_which_nothing_is_found_keep_what_they_have(rows, teacher, tmp_path):
    callback, texts, refresh, _ = refresher(rows, teacher, tmp_path, selection=Selection(rules=[Abs(-2.0)]))
    callback.mine(10)
    revise = Revised(tmp_path, refresh, texts, accumulate=1, ahead=2)
    assert revise(12, [3], [rows[3]]) == [rows[3]]


def test_a_sample_of_the_queries_is_a_function_of_seed_and_step(rows, teacher, tmp_path):
    callback, *_ = refresher(rows, teacher, tmp_path, most_queries=5)
    callback.mine(10)
    first = read_table(tmp_path, 10, 3)
    assert len(first.rows) == 5
    callback.mine(20)
    second = read_table(tmp_path, 20, 3)
    assert set(first.rows.tolist()) < set(second.rows.tolist()), "the others keep what they had"
    again, *_ = refresher(rows, teacher, tmp_path / "again", most_queries=5)
    again.mine(10)
    assert path_of(tmp_path / "again", 10).read_bytes() == path_of(tmp_path, 10).read_bytes()


def test_a_time_budget_leaves_the_rest_as_it_was(rows, teacher, tmp_path, caplog):
    caplog.set_level("INFO")
    callback, *_ = refresher(rows, teacher, tmp_path, most_seconds=1e-9)
    write_table(tmp_path, 10, Table(np.array([4]), np.array([[1, 2, -1]]), np.array([[0.5, 0.4, np.nan]])))
    callback.mine(20)
    assert read_table(tmp_path, 20, 3).rows.tolist() == [4]
    assert "most_seconds was over before all documents were encoded" in caplog.text


def test_tables_find_their_rows():
    table = Table(np.array([2, 7]), np.array([[5, 6], [8, -1]]), np.zeros((2, 2)))
    assert table.rows_at([7, 1, 2, 9]) == [[8], None, [5, 6], None]
    assert Table(np.empty(0, np.int64), np.empty((0, 2), np.int64), np.empty((0, 2))).rows_at([1]) == [None]


def test_settings_that_cannot_be(rows, teacher, tmp_path):
    for name in ("every", "delay", "most_queries"):
        with pytest.raises(InputError, match=f"{name} must be 1 or more"):
            refresher(rows, teacher, tmp_path, **{name: 0})
    with pytest.raises(InputError, match="most_seconds must be above 0"):
        refresher(rows, teacher, tmp_path, most_seconds=0.0)
    _, texts, refresh, _ = refresher(rows, teacher, tmp_path)
    with pytest.raises(InputError, match=r"mining.delay=2: batches are made 9 steps ahead.*to 9 or more"):
        Revised(tmp_path, refresh, texts, accumulate=1, ahead=9)


def test_rows_with_teacher_scores_are_refused(words, tmp_path):
    path = Path(tmp_path / "scored.jsonl")
    row = {"positive": "dog", "negative": "bird", "teacher_scores": [1.0, 0.0]}
    path.write_text("".join(json.dumps({"query": f"cat {n}", **row}) + "\n" for n in range(8)), "utf-8")
    with pytest.raises(InputError, match="rows without teacher_scores"):
        Run(compose([*words, f"data.train={path}", "data.batch_size=1", "name=x"]))


def test_ranks_divide_the_texts_and_find_what_one_finds(on_ranks, tmp_path):
    script = Path(__file__).with_name("refresh_ranks.py")
    assert on_ranks(script, "main", tmp_path / "one", world=1) == [120]
    assert on_ranks(script, "main", tmp_path / "two") == [60, 60]
    assert path_of(tmp_path / "two", 10).read_bytes() == path_of(tmp_path / "one", 10).read_bytes()
    assert steps_of(tmp_path / "two") == [10]
    assert len(list((tmp_path / "two").iterdir())) == 1, "what ranks wrote for each other is gone"
