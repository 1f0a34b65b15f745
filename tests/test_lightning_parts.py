"""The example of docs/python.md: the Lightning parts under a Trainer of one's own."""

import re
from pathlib import Path

import torch

from embedtrain.model.folder.export import load_encoder

PAGE = Path(__file__).parents[1] / "docs/python.md"


def test_the_example_trains(tiny_bert, small_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where Lightning puts what it writes
    section = PAGE.read_text("utf-8").split("## The Lightning parts alone")[1]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]
    names = {"MODEL": str(tiny_bert), "ROWS": str(small_data / "train.jsonl"), "PAIRS": [[1, 8], [4, 32]]}
    exec(compile(code, str(PAGE), "exec"), names)
    assert names["trainer"].global_step == 4
    before, after = load_encoder(str(tiny_bert)).state_dict(), names["encoder"].state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
