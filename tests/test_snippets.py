"""Every command of README.md and docs/ composes; those of README.md run."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from small_runs import command, write_rows

from embedtrain.cli.commands import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
CODE = re.compile(r"^```(\w*)\n(.*?)^```|((?:^ {4,6}\S.*\n)+)", re.MULTILINE | re.DOTALL)
RUN = re.compile(r"(?:^|\s)embedtrain-(\w+)(?= )([^|]*)")
LEFT_OUT = {  # what a `...` on a page stands for
    "train": ["name=x", "data.train=rows.jsonl"],
    "doctor": ["name=x", "data.train=rows.jsonl"],
    "mine": ["source=rows.jsonl", "out=o.jsonl", "teacher=minilm"],
    "export": ["model=runs/mine", "out=o"],
    "evaluate": ["model=runs/mine", "tasks=[local]", "data_root=my-data"],
}
HYDRA_ONLY = ("--shell-completion", "--config-dir", "--help")  # have tests of their own, in tests/cli
ELSEWHERE = (
    "hydra/launcher=submitit",
    "hydra/sweeper=",
)  # a cluster; plugins that do not install beside ours


def commands_of(page):
    """(command, words) of each call of ours on a page, without what is not of its line."""
    for _, block, indented in CODE.findall(page.read_text("utf-8")):
        for line in (block or indented).replace("\\\n", " ").splitlines():
            if line.lstrip().startswith("#") or not (called := RUN.search(line)):
                continue
            name, rest = called.groups()
            words = shlex.split(re.sub(r"\s\(pip install.*", "", rest), comments=True)
            if any("..." in word for word in words):
                words = [word for word in words if "=" in word or word.startswith("--")]
                given = {word.partition("=")[0] for word in words}
                words += [word for word in LEFT_OUT[name] if word.partition("=")[0] not in given]
            yield name, words


SHOWN = {
    (name, *words): f"{page.stem}-{number}-{name}"
    for page in PAGES
    for number, (name, words) in enumerate(commands_of(page))
    if name in COMMANDS and not any(word.startswith(ELSEWHERE + HYDRA_ONLY) for word in words)
}


def test_commands_are_found():
    """The net under the pattern."""
    assert len(SHOWN) > 40
    assert {line[0] for line in SHOWN} == set(COMMANDS)


@pytest.mark.parametrize("line", SHOWN, ids=SHOWN.values())
def test_a_command_of_a_page_composes(line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, *words = line
    words = [word for word in words if not word.startswith(("--multirun", "hydra"))]
    first = [re.sub(r"(?<=[\w}]),[\w,.]+$", "", word.replace("${hydra:job.num}", "0")) for word in words]
    command(name, *first, "show=true")  # of a sweep, the first job
    assert "\n" in capsys.readouterr().out


NEEDS = {  # words of README.md that this machine cannot follow
    "backbone=bert_base": "a hub",
    "backbone=qwen3_0_6b": "a hub",
    "tasks=[STSBenchmark]": "a hub",
    "trainer=ddp": "eight devices",
}


@pytest.fixture(scope="module")
def reader(tmp_path_factory, small_data, minilm_path):
    """The folder in which a reader of README.md types: rows of each kind, tasks, and a teacher."""
    home = tmp_path_factory.mktemp("reader")
    rows = [json.loads(line) for line in (small_data / "train.jsonl").read_text("utf-8").splitlines()]
    for name in ("rows.jsonl", "faq.jsonl", "shards/a.jsonl"):
        write_rows(home / name, rows)
    (home / "documents").mkdir()
    for number, row in enumerate(rows):
        (home / f"documents/{number}.md").write_text(f"# {row['query']}\n\n{row['positive']}\n", "utf-8")
    scored = [
        {"sentence1": row["query"], "sentence2": row["positive"], "score": number % 6}
        for number, row in enumerate(rows)
    ]
    write_rows(home / "scored.jsonl", scored)
    shutil.copytree(small_data / "retrieval", home / "my-data/retrieval")
    (home / "MODEL").symlink_to(minilm_path)
    return home


@pytest.mark.slow
def test_the_commands_and_the_code_of_the_readme_run_in_their_order(reader, monkeypatch, capsys):
    monkeypatch.chdir(reader)
    text = (ROOT / "README.md").read_text("utf-8")
    names, done = {}, 0
    for name, words in commands_of(ROOT / "README.md"):
        if name not in COMMANDS or NEEDS.keys() & set(words):
            continue
        if name == "train":
            words = [*words, "trainer.max_steps=1", "data.batch_size=16"]
        if name == "doctor":  # of a run that is not there yet
            words = ["name=longer", *words[1:]]
        command(name, *words)
        done += 1
    assert done >= 10
    for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        exec(compile(block, "README.md", "exec"), names)
    assert names["run"].folder.name == "pairs"
    assert (reader / "pairs-cut/model.safetensors").is_file()
    assert "Traceback" not in capsys.readouterr().err
