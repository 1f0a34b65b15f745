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
