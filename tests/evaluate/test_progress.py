import io

from rich.console import Console

from embedtrain.evaluate.progress import SweepBar, Tick


def test_the_bar_shows_each_task_its_cells_and_its_texts():
    out = io.StringIO()
    with SweepBar(Console(file=out, width=120, force_terminal=True, color_system=None)) as bar:
        bar(Tick("mine", 0, 6, 0))
        bar(Tick("mine", 3, 6, 1234))
        bar(Tick("find", 6, 6, 99))
    shown = out.getvalue()
    assert "3/6 cells · 1,234 texts encoded" in shown
    assert "find" in shown
    assert "6/6 cells · 99 texts encoded" in shown


def test_where_vectors_came_from_is_said():
    assert Tick("mine", 1, 1, 1234).told == "1,234 texts encoded"
    assert Tick("mine", 1, 1, 0, 77).told == "77 found in the store"
    assert Tick("mine", 1, 1, 5, 77).told == "5 texts encoded, 77 found in the store"
    assert Tick("mine", 1, 1, 0).told == "nothing to encode"
