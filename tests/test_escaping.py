"""Hostile names and texts go through every writer that people or other programs read, and stay text."""

import ast
import csv
import io
import json
import logging
import re

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from rich.console import Console

from embedtrain import console
from embedtrain.cli.doctor import show
from embedtrain.cli.launch import fail
from embedtrain.cli.process.logs import set_up_logs
from embedtrain.doctor.findings import Finding
from embedtrain.escaping import UNSHOWN, csv_cell, markdown, python_string, terminal
from embedtrain.evaluation.sweeping.cost import Cost
from embedtrain.files.scores import TaskFacts, append_scores, read_scores, write_scores
from embedtrain.model.folder.cards.card import Lineage, Story, model_card, model_index
from embedtrain.model.folder.contract import read_contract, write_contract
from embedtrain.model.folder.describe import contract_of
from embedtrain.model.folder.export import load_encoder
from embedtrain.reporting.figures import heat_map, save_heat_map
from embedtrain.reporting.funnels import funnel_table
from embedtrain.reporting.leaderboard import leaderboard, write_leaderboard
from embedtrain.reporting.table import comparison
from embedtrain.reporting.verdicts import smallest_table, subset_table, tasks_table, verdict_table
from embedtrain.run.cost import plan_table
from embedtrain.run.results.story import recipe_of
from embedtrain.training.metrics import FileLogger
from embedtrain.types import InputError, Score

HOSTILE = {
    "terminal": "\x1b]0;owned\x07\x1b[31mred\x9b2J\r",
    "markup": "[bold red]x[/bold red][/nothing] [link=http://x]y[/link] \\[b]",
    "formula": '=HYPERLINK("http://x")',
    "plus": "+1+2",
    "at": "@SUM(A1)",
    "html": "<script>alert(1)</script> <b>x</b> &lt; https://x",
    "blocks": "a | b\n---\n# c\n\n- [d](http://x) ![e](http://x) *f* __g__ ~~h~~ `i`",
    "fence": "`````\n```python\nimport os",
    "python": '"); __import__("os").system("x"); ("\\',
    "front matter": "---\nlicense: x\n---\n'\": {{{ &a *a !!python/object",
    "mathematics": r"$\frac{1}{ $$ \$",
    "directions": "\u202etxt.exe\u2066\u2028",
    "half": "\ud83d",
}


@pytest.fixture(params=HOSTILE)
def text(request):
    return HOSTILE[request.param]


def flat(text):
    return terminal(" ".join(text.splitlines()))


def score(task, dtype="float32", metric="main", value=0.5):
    return Score("run", 1, task, "test", 2, 8, metric, value, dtype)


def facts(text):
    return TaskFacts("STS", "sentence-similarity", text, text, text, True)


def rendered(*parts, **options):
    out = io.StringIO()
    Console(file=out, width=400, **options).print(*parts)
    return out.getvalue()


def tokens_of(source):
    """Of a card or table: the kinds of tokens in it, and its texts."""
    tree = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(source)
    every = [inner for token in tree for inner in [token, *(token.children or [])]]
    return {token.type for token in every} - {"text", "inline"}, [t for t in every if t.type != "inline"]


def test_a_card_says_texts_and_does_nothing_else(text, tiny_bert, tmp_path):
    contract = contract_of(load_encoder(tiny_bert))
    story = Story("", ["line"], "| a |\n| --- |", "title", tmp_path, ["data"], "a: b")
    plain = model_card(contract._replace(source="s", prompts={"query": "q"}), "name", Lineage(), story=story)
    index = model_index(text, [score(text)], {text: facts(text)})
    recipe = recipe_of({"loss": {"name": text}, "seed": text})
    story = story._replace(model_index=index, verdict=[text], title=text, data=[text], recipe=recipe)
    card = model_card(contract._replace(source=text, prompts={text: text}), text, Lineage(), story=story)
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    read = ModelCard.load(tmp_path / "README.md")
    assert read.data.license is None
    assert read.data.library_name == "sentence-transformers"
    assert read.data.eval_results[0].dataset_name == f"{text} ({text})"
    kinds, every = tokens_of(read.text)
    assert kinds - {"text_special"} == tokens_of(ModelCard(plain).text)[0]
    inside = "".join(token.content for token in every)
    assert f"Starting model: {flat(text)}." in inside
    fences = [token.content for token in every if token.type == "fence"]
    (code,) = (part for part in fences if "sentence_transformers" in part)
    assert fences[-1].strip() == recipe.strip()
    lines = re.findall(r"^model = SentenceTransformer\((.*)\)$", code, re.MULTILINE)
    assert [ast.literal_eval(line) for line in lines] == [text]
    assert not UNSHOWN.search(card)


def test_a_contract_is_read_back(text, tiny_bert, tmp_path):
    contract = contract_of(load_encoder(tiny_bert))._replace(source=text, prompts={text: text})
    write_contract(tmp_path, contract)
    assert read_contract(tmp_path).prompts == {text: text}


def test_scores_are_read_back(text, tmp_path):
    write_scores(tmp_path / "scores.jsonl", [score(text)])
    append_scores(tmp_path / "scores.jsonl", [score(text, dtype=text)])
    assert [found.task for found in read_scores(tmp_path / "scores.jsonl")] == [text, text]


def test_a_leaderboard_holds_names_as_text(text, tmp_path):
    write_leaderboard(tmp_path, leaderboard([score(text, value=-0.5)], {text: facts(text)}, {}))
    with (tmp_path / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        names, values = csv.reader(file)
    assert names[-1].lstrip("'") == flat(text)
    assert not any(name.startswith(("=", "+", "-", "@")) for name in names)
    assert values[-1] == "-50.0000"
    table = (tmp_path / "leaderboard.md").read_text("utf-8")
    kinds, every = tokens_of(table)
    assert {kind.partition("_")[0] for kind in kinds} <= {"table", "thead", "tbody", "tr", "th", "td", "text"}
    assert flat(text) in "".join(token.content for token in every)


def test_metrics_hold_names_as_text(text, tmp_path):
    logger = FileLogger(tmp_path)
    logger.log_metrics({text: 1.0, "low": float("-inf")}, step=0)
    logger.finalize("success")
    with (tmp_path / "metrics.csv").open(encoding="utf-8", newline="") as file:
        names, values = csv.reader(file)
    assert names == ["step", csv_cell(text), "low"]
    assert values == ["0", "1.0", "-inf"]


def tables(text):
    side = {"run": text, "cell": "L1_D8", "score": 0.5, "seeds": None}
    row = {"task": text, "metric": text, "first": side, "second": side | {"run": "b"}, "difference": 0.1}
    row |= {"low": 0, "high": 1, "p": 0.1, "corrected": 0.1, "verdict": "worse"}
    yield verdict_table([row], alpha=0.05, correction="holm")
    over = {"first": text, "second": text, "tasks": 3, "smallest_p": 0.1, "verdict": "worse"}
    yield tasks_table([row | over])
    yield smallest_table([row | {"cell": text}])
    yield smallest_table([row | {"cell": None}])
    step = {"dropped": text, "predictability": 1.0, "spearman": 1.0, "kendall": 1.0}
    yield subset_table({"kept": [text], "spearman": 1.0, "kendall": 1.0, "steps": [step]})
    yield comparison([score(text)])
    funnel = f"funnel_L1_D4_k8{text}"
    costs = [score(text, funnel, metric) for metric in ("main", "search_multiply_adds", "search_share")]
    yield funnel_table(costs)
    yield plan_table([Cost(text, 1, 1, True, 1, 1.0, 1.0, text)])


def test_tables_show_names_as_text(text):
    lines = [line for line in terminal(text).splitlines() if line.strip()]
    for table in tables(text):
        shown = rendered(table)
        assert not UNSHOWN.search(shown)
        assert all(line.strip() in shown for line in lines), table.title
        coloured = rendered(table, force_terminal=True)
        assert not re.search(r"\x1b(\]|\[[^m]*\b31m|\[\d*J)", coloured), "of the text, not of the table"


def test_the_doctor_shows_rows_as_text(text):
    out = io.StringIO()
    show([Finding("rows", "note", text, cure=text, examples=(text,))], Console(file=out, width=400))
    assert not UNSHOWN.search(out.getvalue())
    assert out.getvalue().count(terminal(text)) == 3


def test_lines_and_progress_are_text(text, monkeypatch):
    for terminals in (True, False):
        out = io.StringIO()
        plain = Console(file=out, width=400, force_terminal=terminals, no_color=True)
        monkeypatch.setattr(console, "console", plain)
        console.log(text)
        with console.Progress() as progress:
            progress(text, 1, 1, text)
        ours = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]|\r", "", out.getvalue())
        assert not UNSHOWN.search(ours)
        assert "\x1b]0" not in out.getvalue()
        assert "\x1b[31m" not in out.getvalue()
        assert terminal(text) in ours


def test_messages_and_errors_are_text(text, capsys, monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [])
    set_up_logs()
    logging.getLogger("embedtrain").warning("%s", text)
    with pytest.raises(SystemExit):
        fail(InputError(text))
    assert capsys.readouterr().err == f"{terminal(text)}\nerror: {terminal(text)}\n"


def test_a_picture_holds_names_as_text(text, tmp_path):
    figure = heat_map([score(text)])
    assert figure._suptitle._preprocess_math(figure._suptitle.get_text()) == (
        flat(f"{text} · main × 100"),
        False,
    )
    save_heat_map(tmp_path / "a.svg", [score(text)], [score(text)])
    assert "<script>" not in (tmp_path / "a.svg").read_text("utf-8")


def test_plain_names_stay_as_they_are():
    for name in ("all-MiniLM-L6-v2", "STS.12", "Ünïcode—🙂 北京", "a b"):
        assert markdown(name) == csv_cell(name) == terminal(name) == name
        assert python_string(name) == json.dumps(name, ensure_ascii=False)
