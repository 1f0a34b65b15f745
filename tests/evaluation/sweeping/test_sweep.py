import pytest
import torch
from tasks import swept

from embedtrain.files.scores import main_scores, read_scores
from embedtrain.types import Cell, InputError

GRID = tuple(Cell(layer, dim) for layer in (1, 3) for dim in (4, 16))


def run_sweep(encoder, root, folder, subs=GRID, names=None, **changes):
    return swept(encoder, root, subs, folder, names=names, **{"revision": "weights0"} | changes)


def test_every_kind_of_task_gets_its_rows_main_metric_first(make_encoder, data_root, tmp_path):
    scores = run_sweep(make_encoder(), data_root, tmp_path)
    main = main_scores(scores)
    assert {(s.task, s.split, s.metric) for s in main} == {
        ("mine", "test", "cosine_spearman"),
        ("twins", "dev", "max_ap"),
        ("colours", "test", "accuracy"),
        ("find", "test", "ndcg_at_10"),
    }
    assert len(main) == 4 * len(GRID)
    found = {s.metric for s in scores if s.task == "find"}
    assert found == {"ndcg_at_10", "mrr_at_10", "recall_at_10", "recall_at_100"}
    assert read_scores(tmp_path / "scores.jsonl") == scores


def test_each_distinct_text_is_encoded_once_for_the_whole_grid(make_encoder, data_root, tmp_path):
    encoder = make_encoder()
    run_sweep(encoder, data_root, tmp_path)
    one_cell = make_encoder()
    run_sweep(one_cell, data_root, tmp_path / "other", subs=GRID[:1])
    assert encoder.texts == one_cell.texts
    per_task = make_encoder()
    for name in ("mine", "find"):
        per_task.texts.clear()
        run_sweep(per_task, data_root, tmp_path / name, names=[name])
        assert len(per_task.texts) == len(set(per_task.texts))


def test_a_second_call_computes_nothing_and_says_the_same(make_encoder, data_root, tmp_path):
    first = run_sweep(make_encoder(), data_root, tmp_path)
    again = make_encoder()
    assert run_sweep(again, data_root, tmp_path) == first
    assert again.calls == 0
    assert read_scores(tmp_path / "scores.jsonl") == first


def test_a_sweep_that_was_stopped_goes_on_where_it_was(make_encoder, data_root, tmp_path):
    whole = run_sweep(make_encoder(), data_root, tmp_path / "whole", names=["mine", "find"])

    class StoppedError(BaseException):  # as Ctrl-C: no failure of one task
        pass

    def stop(task, cells_done, *_):
        if task == "find" and cells_done == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        run_sweep(make_encoder(), data_root, tmp_path, names=["mine", "find"], progress=stop)
    done = read_scores(tmp_path / "scores.jsonl")
    assert 0 < len(done) < len(whole)
    again = make_encoder()
    assert run_sweep(again, data_root, tmp_path, names=["mine", "find"]) == whole
    assert read_scores(tmp_path / "scores.jsonl") == whole


def test_a_half_written_result_is_computed_again(make_encoder, data_root, tmp_path):
    first = run_sweep(make_encoder(), data_root, tmp_path, names=["mine"])
    for result in (tmp_path / "mteb").rglob("mine.json"):
        result.write_text(result.read_text()[:50])
    assert run_sweep(make_encoder(), data_root, tmp_path, names=["mine"]) == first


def test_other_weights_are_never_served_old_scores(make_encoder, data_root, tmp_path):
    old = run_sweep(make_encoder(seed=0), data_root, tmp_path, names=["mine"])
    changes = {"names": ["mine"], "subs": GRID[:2], "revision": "weights1"}
    new = run_sweep(make_encoder(seed=1), data_root, tmp_path, **changes)
    assert new == run_sweep(make_encoder(seed=1), data_root, tmp_path / "new", **changes)
    assert [s.value for s in new] != [s.value for s in old[: len(new)]]
    assert read_scores(tmp_path / "scores.jsonl") == new, "the other cells would be the old weights'"


def test_scores_of_other_steps_and_other_cells_of_the_same_weights_stay(make_encoder, data_root, tmp_path):
    start = run_sweep(make_encoder(seed=0), data_root, tmp_path, names=["mine"])
    later = {"names": ["mine"], "step": 9, "revision": "w9"}
    halves = [
        run_sweep(make_encoder(seed=1), data_root, tmp_path, subs=subs, **later)
        for subs in (GRID[:2], GRID[2:])
    ]
    assert read_scores(tmp_path / "scores.jsonl") == [*start, *halves[0], *halves[1]]


def test_the_result_tree_is_mtebs_with_the_full_cell_at_the_standard_path(make_encoder, data_root, tmp_path):
    run_sweep(make_encoder(), data_root, tmp_path, names=["mine"], run="my run/1")
    tree = tmp_path / "mteb/results/embedtrain__my_run_1/weights0"
    assert (tree / "mine.json").is_file()
    assert {folder.name for folder in (tree / "experiments").iterdir()} == {
        "embed_dim_4__n_layers_1__normalize_post",
        "embed_dim_16__n_layers_1",
        "embed_dim_4__n_layers_3__normalize_post",
    }


def test_progress_tells_tasks_cells_and_texts(make_encoder, data_root, tmp_path):
    ticks = []
    encoder = make_encoder()
    run_sweep(encoder, data_root, tmp_path, names=["find"], progress=lambda *tick: ticks.append(tick))
    assert ticks[0] == ("find", 0, len(GRID), "nothing to encode")
    assert ticks[-1] == ("find", len(GRID), len(GRID), f"{len(encoder.texts)} texts encoded")


def test_nothing_is_printed_and_the_random_state_is_kept(make_encoder, data_root, tmp_path, capfd):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    run_sweep(make_encoder(), data_root, tmp_path)
    assert torch.equal(torch.rand(1), expected)
    assert torch.get_num_threads() == threads
    out = capfd.readouterr()
    assert out.out == ""
    assert out.err == ""


@pytest.mark.parametrize(
    ("subs", "message"),
    [
        ([Cell(4, 8)], r"layer must be in 1\.\.3, got 4"),
        ([Cell(0, 8)], r"layer must be in 1\.\.3, got 0"),
        ([Cell(3, 17)], r"dim must be in 1\.\.16, got 17"),
        ([], "no sub-model"),
    ],
)
def test_sub_models_the_model_does_not_have_are_named(make_encoder, data_root, tmp_path, subs, message):
    with pytest.raises(InputError, match=message):
        run_sweep(make_encoder(), data_root, tmp_path, subs=subs)
