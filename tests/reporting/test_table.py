import pytest
from rich.console import Console

from embedtrain.reporting.table import comparison
from embedtrain.types import InputError, Score, SubModel


def rows(values, task="mine", metric="accuracy", step=0):
    return [Score("run", step, task, "test", *sub, metric, value) for sub, value in values.items()]


def shown(table):
    console = Console(width=120, record=True, file=open("/dev/null", "w"))
    console.print(table)
    return console.export_text()


BEFORE = rows({(1, 8): 0.2, (2, 8): 0.5, (2, 16): 0.6})
AFTER = rows({(1, 8): 0.4, (2, 8): 0.45, (2, 16): 0.6}, step=9)


def test_cells_show_before_and_after_times_a_hundred_with_trained_marked():
    text = shown(comparison(BEFORE, AFTER, trained=[SubModel(1, 8), SubModel(2, 16)]))
    assert "●20.0→40.0" in text
    assert " 50.0→45.0" in text
    assert "●50.0" not in text
    assert "mean of 2 ● trained: 40.0 → 50.0  (x 1.25)" in text
    assert "mean of 3 shown: 43.3 → 48.3" in text
    assert "mine · accuracy × 100" in text


def test_better_and_worse_differ_in_colour_and_unchanged_has_none():
    table = comparison(BEFORE, AFTER)
    cells = {
        cell.plain: {str(span.style) for span in cell.spans}
        for column in table.columns[1:]
        for cell in column.cells
    }
    assert cells["20.0→40.0"] == {"bright_blue"}
    assert cells["50.0→45.0"] == {"orange3"}
    assert cells["60.0→60.0"] <= {""}
    assert "·" in cells  # (1, 16) was not measured


@pytest.mark.parametrize("lists", [(AFTER, []), ([], AFTER)])
def test_one_list_shows_one_number(lists):
    text = shown(comparison(*lists))
    assert "40.0" in text
    assert "→" not in text
    assert "mean of 3 shown: 48.3" in text


def test_several_tasks_show_as_the_mean_of_their_main_metrics():
    scores = (
        rows({(1, 8): 0.2})
        + rows({(1, 8): 0.9}, metric="f1")
        + rows({(1, 8): 0.4}, task="other", metric="ndcg")
    )
    text = shown(comparison(scores))
    assert "30.0" in text
    assert "mean of 2 tasks × 100" in text
    assert "90.0" in shown(comparison(scores, metric="f1"))


def test_before_and_after_are_compared_on_the_tasks_both_have():
    text = shown(comparison(BEFORE, AFTER + rows({(1, 8): 1, (2, 8): 1, (2, 16): 1}, task="new")))
    assert "20.0→40.0" in text


def test_an_unknown_metric_and_unequal_tasks_are_named():
    with pytest.raises(InputError, match="no score has the metric 'bleu'; there are accuracy"):
        comparison(BEFORE, metric="bleu")
    with pytest.raises(InputError, match="not measured on the same tasks"):
        comparison(BEFORE + rows({(1, 8): 0.4}, task="other"))
    with pytest.raises(InputError, match="no task and split in common"):
        comparison(BEFORE, rows({(1, 8): 0.4}, task="other"))


def test_each_dtype_is_a_block_with_its_bytes_and_what_a_search_costs():
    scores = [
        Score("run", 0, "mine", "test", layer, dim, "accuracy", 0.1 * layer + number / 100, dtype)
        for number, dtype in enumerate(("float32", "int8", "binary", "binary_rescore_int8"))
        for layer in (1, 2)
        for dim in (8, 4096)
    ]
    table = comparison(scores, rescore_multiplier=5)
    first, small, large = (
        [cell if isinstance(cell, str) else cell.plain for cell in column.cells] for column in table.columns
    )
    assert first == [
        x for dtype in ("float32", "int8", "binary", "binary_rescore_int8") for x in (dtype, "1", "2")
    ]
    rows = "32 B,10.0,20.0,8 B,11.0,21.0,1 B,12.0,22.0,9 B,13.0,23.0"
    assert small == rows.split(",")
    assert large[::3] == ["16 KiB", "4096 B", "512 B", "4608 B"]
    text = shown(table)
    assert "int8, mean of 4 shown: 16.0" in text
    assert "float32: D float32 multiply-adds a document" in text
    assert "binary_rescore_int8: D bit operations a document + 5·k·D multiply-adds" in text
