"""One of several ranks that mine for a run: how many texts it encoded."""

from pathlib import Path

from processes import module_at

from embedtrain import ranks
from embedtrain.data.read.sources import Example
from embedtrain.mining import refresh
from embedtrain.mining.selection import Selection


def main(rank, folder):
    refresh.WINDOW = 5
    rows = [Example(f"q{n}", (f"p{n}",), (f"o{n}",), None, f"t{n % 2}", "w") for n in range(40)]
    teacher = module_at(Path(__file__).with_name("conftest.py")).CountingTeacher()

    def encode(texts, role, prompt):
        return teacher.embed(texts, role, [prompt] * len(texts))

    with ranks.process_group():
        settings = refresh.Refresh(selection=Selection(per_row=3, depth=5), every=10)
        texts = refresh.texts_of(enumerate(rows))
        refresh.RefreshNegatives(settings, texts, encode, folder, seed=1).mine(10)
    return len(teacher.asked)
