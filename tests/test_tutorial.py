"""docs/tutorial.md from top to bottom: its code and commands, on a few rows and one step."""

import csv
import re
import shlex
from pathlib import Path

import pytest
from small_runs import command

PAGE = (Path(__file__).parents[1] / "docs/tutorial.md").read_text("utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_a_reader_who_types_the_tutorial_ends_with_a_cut(minilm_path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with open("train.csv", "w", encoding="utf-8", newline="") as file:
        asked = [(f"question {n} of page {page}?", f"page_{page}") for page in range(8) for n in range(12)]
        csv.writer(file).writerows([("text", "category"), *asked])
    shown = []
    for language, block in BLOCK.findall(PAGE):
        if language == "python":
            exec(compile(block, "tutorial.md", "exec"), {})
        if language != "bash" or "embedtrain-" not in block:
            continue
        name, *words = shlex.split(block.replace("\\\n", " "))
        name = name.removeprefix("embedtrain-")
        command(name, *words, *(["trainer.max_steps=1"] if name in ("train", "doctor") else []))
        shown.append(name)
    assert shown == ["doctor", "train", "compare", "compare", "export"]
    out = capsys.readouterr().out
    assert "8 pages, 40 questions to measure with" in out
    assert "(8, 128)" in out
    assert Path("help-cut/model.safetensors").is_file()
