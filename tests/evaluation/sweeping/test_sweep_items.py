import pytest
from tasks import swept

from embedtrain.evaluation.comparing.compare import Judgement, compare_runs
from embedtrain.evaluation.comparing.runs import read_run
from embedtrain.evaluation.comparing.statistics import Settings
from embedtrain.evaluation.per_item.stored import items_file, read_items
from embedtrain.files.scores import main_scores
from embedtrain.types import Cell

CELLS = (Cell(1, 4), Cell(3, 16), Cell(3, 16, "int8"))
NAMES = ("mine", "twins", "colours", "find")


def run_sweep(encoder, root, folder, cells=CELLS, names=NAMES, **changes):
    settings = {"run": folder.name, "revision": "weights0"} | changes
    return swept(encoder, root, cells, folder, names=names, **settings)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_main_score_has_the_items_that_make_it(make_encoder, data_root, tmp_path, monkeypatch, workers):
    monkeypatch.setattr("embedtrain.evaluation.sweeping.scoring.FORKS_PAY", 0.0)
    scores = main_scores(run_sweep(make_encoder(), data_root, tmp_path, workers=workers))
    assert len(scores) == len(CELLS) * len(NAMES)
    for score in scores:
        path = items_file(tmp_path, score.task, step=0, cell=str(score.cell), split=score.split)
        items = read_items(path)
        assert next(iter(items.about.statistics)) == score.metric
        assert (items.about.weights, items.about.dtype) == ("weights0", score.dtype)
        # mteb rounds ranking metrics to five digits, and files hold six
        assert items.sample().score() == pytest.approx(
            score.value, abs=5.5e-6 if score.task == "find" else 6e-7
        )


def test_a_cell_without_its_items_is_measured_again(make_encoder, data_root, tmp_path):
    first = run_sweep(make_encoder(), data_root, tmp_path)
    path = items_file(tmp_path, "mine", step=0, cell=str(CELLS[0]), split="test")
    before = path.read_bytes()
    path.write_bytes(before[:50])
    again = make_encoder()
    assert run_sweep(again, data_root, tmp_path) == first
    assert again.calls > 0
    assert read_items(path).about.task == "mine"


def test_two_sweeps_compare_and_the_same_model_is_not_distinguishable(make_encoder, data_root, tmp_path):
    for name in ("a", "b"):
        run_sweep(make_encoder(), data_root, tmp_path / name)
    first, second = read_run(str(tmp_path / "a")), read_run(str(tmp_path / "b"))
    assert first.cells == set(CELLS)
    rows = compare_runs(first, [second], [(cell, cell) for cell in CELLS], Judgement(Settings(resamples=100)))
    assert len(rows) == len(CELLS) * len(NAMES)
    assert {(row.difference, row.found.p, row.verdict) for row in rows} == {(0, 1, "not distinguishable")}
