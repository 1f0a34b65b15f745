from itertools import combinations

import numpy as np
import pytest
from scipy import stats
from scored_runs import FULL, HALF, SMALL, write_run

from embedtrain.evaluation.comparing.compare import Judgement, Row, Side, compare_runs
from embedtrain.evaluation.comparing.every_pair import every_pair, together
from embedtrain.evaluation.comparing.families import correct
from embedtrain.evaluation.comparing.runs import read_run
from embedtrain.evaluation.comparing.statistics import Settings, compare
from embedtrain.evaluation.per_item.weighted import Sample

JUDGEMENT = Judgement(Settings(resamples=300))


def test_a_pair_has_the_rows_of_these_two_runs_alone(tmp_path):
    quality = [{FULL: 0.01 * number, HALF: 0.0} for number in range(3)]
    runs = [read_run(write_run(tmp_path / f"{n}", each, seed=n)) for n, each in enumerate(quality)]
    pairs = list(combinations(range(3), 2))
    for found, (one, other) in zip(every_pair(runs, pairs, JUDGEMENT), pairs, strict=True):
        assert (found.first, found.second, found.cell, found.reason) == (one, other, FULL, "")
        assert list(found.rows) == compare_runs(runs[one], [runs[other]], [(FULL, FULL)], JUDGEMENT)


def test_a_run_against_itself_is_not_distinguishable(tmp_path):
    run = read_run(write_run(tmp_path / "a", {FULL: 0.0}))
    (found,) = every_pair([run, run], [(0, 1)], JUDGEMENT)
    assert {row.verdict for row in found.rows} == {"not distinguishable"}
    mean = found.together
    assert (mean.tasks, mean.first, mean.low, mean.high) == (2, mean.second, 0, 0)
    assert (mean.corrected, mean.verdict) == (1, "not distinguishable")


def test_means_are_corrected_over_the_pairs_and_tasks_over_the_pair(tmp_path):
    runs = [read_run(write_run(tmp_path / f"{n}", {FULL: 0.002 * n}, seed=n)) for n in range(4)]
    pairs = list(combinations(range(4), 2))
    plain = every_pair(runs, pairs, JUDGEMENT._replace(correction="none"))
    held = every_pair(runs, pairs, JUDGEMENT)
    means = correct([found.together.corrected for found in plain], "holm")
    assert [found.together.corrected for found in held] == means
    for one, other in zip(plain, held, strict=True):
        expected = correct([row.corrected for row in one.rows], "holm")
        assert [row.corrected for row in other.rows] == expected


def test_other_data_no_items_and_no_common_cell_leave_the_rest(tmp_path):
    folders = [
        write_run(tmp_path / "a", {FULL: 0.0}),
        write_run(tmp_path / "b", {FULL: 0.0}, seed=1, data="other"),
        write_run(tmp_path / "c", {FULL: 0.05}, seed=2),
        write_run(tmp_path / "d", {FULL: 0.0}, seed=3, items=False),
        write_run(tmp_path / "e", {SMALL: 0.0}, seed=4),
    ]
    runs = [read_run(folder) for folder in folders]
    found = {one[:2]: one for one in every_pair(runs, list(combinations(range(5), 2)), JUDGEMENT)}
    assert {pair for pair, one in found.items() if one.together is not None} == {(0, 2)}
    assert {row.verdict for row in found[0, 2].rows} == {"better"}
    assert "evaluate both on the same data" in found[0, 1].reason
    assert "no items are kept" in found[2, 3].reason
    assert "no cell in common" in found[0, 4].reason
    assert [row.found for row in found[0, 3].rows] == [None, None]


def test_the_mean_over_tasks_is_judged_as_a_t_test_of_all_items_judges_it():
    generator, p, theirs = np.random.default_rng(0), [], []
    side = Side("r", 1, FULL, 0.0)
    for _ in range(60):
        tasks = [generator.normal(0.05, 1, size=(2, 80)) for _ in range(3)]
        rows = []
        for pair in tasks:
            zeros = np.zeros(80)
            samples = [Sample("mean", each[:, None], zeros, zeros.astype(int)) for each in pair]
            rows.append(Row("t", "test", "m", side, side, compare(*samples, Settings(resamples=400))))
        p.append(together(rows, JUDGEMENT).corrected)
        every = np.concatenate([other - one for one, other in tasks])
        theirs.append(stats.ttest_1samp(every, 0).pvalue)
    assert p == pytest.approx(theirs, abs=0.06)
