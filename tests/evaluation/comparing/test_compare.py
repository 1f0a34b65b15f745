import numpy as np
import pytest
from scored_runs import FULL, HALF, HARD, SMALL, write_run
from small_runs import write_rows

from embedtrain.evaluation.comparing.compare import (
    Judgement,
    compare_runs,
    compare_seeds,
    over_tasks,
    smallest_cells,
)
from embedtrain.evaluation.comparing.runs import cells_of, read_run, read_seeds
from embedtrain.evaluation.comparing.statistics import Settings
from embedtrain.evaluation.per_item.stored import About, ItemValues, items_file, write_items
from embedtrain.types import Cell, InputError, Score

JUDGEMENT = Judgement(Settings(resamples=500))


def test_a_better_run_is_better_and_an_equal_one_not_distinguishable(tmp_path):
    first = read_run(write_run(tmp_path / "a", {FULL: 0.0, HALF: 0.0}))
    second = read_run(write_run(tmp_path / "b", {FULL: 0.05, HALF: 0.0}, seed=1))
    rows = compare_runs(first, [second], [(FULL, FULL), (HALF, HALF)], JUDGEMENT)
    said = {(row.task, row.first.cell): row.verdict for row in rows}
    assert {said[task, FULL] for task in ("one", "two")} == {"better"}
    assert {said[task, HALF] for task in ("one", "two")} == {"not distinguishable"}
    better = next(row for row in rows if row.verdict == "better")
    assert better.found.low < better.difference < better.found.high
    assert better.difference == pytest.approx(0.05, abs=0.01)
    assert (better.found.n, better.metric) == (120, "accuracy")


def test_pairing_sees_what_the_spread_of_the_items_would_hide(tmp_path):
    first = read_run(write_run(tmp_path / "a", {FULL: 0.0}, tasks=["one"]))
    second = read_run(write_run(tmp_path / "b", {FULL: 0.01}, tasks=["one"], seed=1))
    row = compare_runs(first, [second], [(FULL, FULL)], JUDGEMENT)[0]
    assert row.verdict == "better"
    assert HARD.std() / len(HARD) ** 0.5 > 0.015  # one standard error of either mean


def test_p_is_corrected_over_all_rows(tmp_path):
    first = read_run(write_run(tmp_path / "a", {FULL: 0.0, HALF: 0.0}))
    second = read_run(write_run(tmp_path / "b", {FULL: 0.003, HALF: 0.003}, seed=3))
    pairs = [(FULL, FULL), (HALF, HALF)]
    plain = compare_runs(first, [second], pairs, JUDGEMENT._replace(correction="none"))
    held = compare_runs(first, [second], pairs, JUDGEMENT._replace(correction="bonferroni"))
    assert [row.corrected for row in plain] == [row.found.p for row in plain]
    assert [row.corrected for row in held] == [min(1, 4 * row.found.p) for row in held]


def test_the_smallest_cut_that_costs_nothing_is_named(tmp_path):
    run = read_run(write_run(tmp_path / "a", {FULL: 0.0, HALF: 0.0, SMALL: -0.05}))
    rows = compare_runs(run, [run], [(FULL, HALF), (FULL, SMALL)], JUDGEMENT)
    assert {row.second.cell: row.verdict for row in rows} == {HALF: "not distinguishable", SMALL: "worse"}
    found = smallest_cells(rows)
    assert [(one.task, one.cell) for one in found] == [("one", HALF), ("two", HALF)]
    assert all(one.low <= one.difference for one in found)
    alone = smallest_cells([row for row in rows if row.second.cell == SMALL])
    assert {one.cell for one in alone} == {None}


def test_wilcoxon_over_tasks_needs_tasks(tmp_path):
    tasks = [f"t{number}" for number in range(6)]
    first = read_run(write_run(tmp_path / "a", {FULL: 0.0}, tasks))
    second = read_run(write_run(tmp_path / "b", {FULL: 0.03}, tasks, seed=1))
    rows = compare_runs(first, [second], [(FULL, FULL)], JUDGEMENT)
    (found,) = over_tasks(rows, JUDGEMENT)
    assert (found.tasks, found.wilcoxon.p, found.verdict) == (6, pytest.approx(0.03125), "better")
    assert found.difference == pytest.approx(np.mean([row.difference for row in rows]))
    assert over_tasks(rows[:1], JUDGEMENT) == []


def test_steps_of_one_run_are_compared_by_name(tmp_path):
    write_run(tmp_path / "a", {FULL: 0.0})
    write_run(tmp_path / "a", {FULL: 0.05}, step=40)
    before, after = read_run(f"{tmp_path / 'a'}@0"), read_run(str(tmp_path / "a"))
    assert (before.step, after.step) == (0, 40)
    assert {row.verdict for row in compare_runs(before, [after], [(FULL, FULL)], JUDGEMENT)} == {"better"}
    with pytest.raises(InputError, match="no scores of step 7; there are 0, 40"):
        read_run(f"{tmp_path / 'a'}@7")


def test_seeds_are_what_varies_over_seeds(tmp_path):
    for seed in range(4):
        write_run(tmp_path / f"a_s{seed}", {FULL: 0.0}, seed=seed, items=False)
        write_run(tmp_path / f"b_s{seed}", {FULL: 0.03}, seed=10 + seed, items=False)
    first, second = (read_seeds(str(tmp_path / name), "_s*") for name in "ab")
    assert list(first) == ["0", "1", "2", "3"]
    rows = compare_seeds(first, [second], [(FULL, FULL)], JUDGEMENT)
    assert {(row.verdict, row.found.n, row.found.test) for row in rows} == {
        ("better", 4, "paired t over seeds")
    }
    side = rows[0].first
    assert side.run == str(tmp_path / "a_s*")
    values = [run.scores["one", "test"][FULL].value for run in first.values()]
    assert (side.seeds.mean, side.seeds.sd) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    with pytest.raises(InputError, match=r"no folder .*a_x\*"):
        read_seeds(str(tmp_path / "a"), "_x*")
    with pytest.raises(InputError, match=r"must have one \*"):
        read_seeds(str(tmp_path / "a"), "_s0")


def test_a_task_that_keeps_no_items_has_scores_and_no_verdict(tmp_path):
    run = read_run(write_run(tmp_path / "a", {FULL: 0.0}, tasks=["one"]))
    path = items_file(run.folder, "one", step=0, cell=str(FULL), split="test")
    about = About("a", 0, "one", "test", *FULL, "w", "d0", "2.26", ("default",), {})
    nothing = np.empty(0)
    write_items(path, ItemValues(about, nothing.astype(np.int64), nothing.astype(np.int64), nothing, {}))
    (row,) = compare_runs(run, [run], [(FULL, FULL)], JUDGEMENT)
    assert (row.found, row.verdict, row.difference, row.metric) == (None, None, 0, "accuracy")


def test_what_does_not_compare_is_named(tmp_path):
    first = read_run(write_run(tmp_path / "a", {FULL: 0.0}))
    other_tasks = read_run(write_run(tmp_path / "b", {FULL: 0.0}, tasks=["one", "three"]))
    with pytest.raises(InputError, match=r"a has no scores of three \(test\).*tasks="):
        compare_runs(first, [other_tasks], [(FULL, FULL)], JUDGEMENT)
    assert len(compare_runs(first.keep(["one"]), [other_tasks.keep(["one"])], [(FULL, FULL)], JUDGEMENT)) == 1
    with pytest.raises(InputError, match="no scores of four; there are one, two"):
        first.keep(["four"])
    with pytest.raises(InputError, match="one was not measured at L2_D32; there are L6_D384"):
        compare_runs(first, [first], [(FULL, SMALL)], JUDGEMENT)
    other_data = read_run(write_run(tmp_path / "c", {FULL: 0.0}, data="d1"))
    with pytest.raises(InputError, match=r"measured on data d0 and .* on d1"):
        compare_runs(first, [other_data], [(FULL, FULL)], JUDGEMENT)
    without = read_run(write_run(tmp_path / "d", {FULL: 0.0}, items=False))
    with pytest.raises(InputError, match="no items are kept of this cell"):
        compare_runs(first, [without], [(FULL, FULL)], JUDGEMENT)
    with pytest.raises(InputError, match=r"no scores.jsonl with scores in it"):
        read_run(str(tmp_path / "nowhere"))


def test_cells_are_read_from_lists():
    assert cells_of([[6, 384], [3, 96, "int8"]]) == [Cell(6, 384), Cell(3, 96, "int8")]
    for bad in ([6], ["6", 384], [1, 2, "int8", 4]):
        with pytest.raises(InputError, match="cells must be"):
            cells_of([bad])


def test_one_folder_holds_one_model(tmp_path):
    rows = [Score(run, 0, "one", "test", 6, 384, "accuracy", 0.5) for run in ("a", "b")]
    path = tmp_path / "scores.jsonl"
    write_rows(path, [row._asdict() for row in rows])
    with pytest.raises(InputError, match=r"scores of several models \(a, b\)"):
        read_run(str(tmp_path))
