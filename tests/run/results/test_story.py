"""What a card says of its run, on every folder that a run or an export writes."""

import re

import pytest
import yaml
from huggingface_hub import ModelCard
from small_runs import command

from embedtrain.files.measured.verdict import read_verdict
from embedtrain.files.owned import stranger
from embedtrain.files.scores import read_scores
from embedtrain.reporting.cells import cells
from embedtrain.run.results.story import data_of, grid_of, recipe_of, story_of
from embedtrain.types import Cell


@pytest.fixture(scope="module")
def root(small_run, small_data, tmp_path_factory):
    """A folder with a measured run `mine` with a cut, and an export of it."""
    root = tmp_path_factory.mktemp("cards")
    places = [f"evaluation.data_root={small_data}", f"output_root={root}"]
    command("train", *small_run, "name=mine", "exports=[[2,16]]", "evaluation.tasks=[local]", *places)
    command("export", f"model={root / 'mine'}", "layer=1", "dim=8", f"out={root / 'small'}")
    return root


@pytest.fixture(params=["mine/model", "mine/cut_L2_D16", "small"])
def folder(request, root):
    return root / request.param


def test_a_card_begins_with_the_verdict(folder, root):
    card = (folder / "README.md").read_text("utf-8")
    parts = re.findall(r"^##? (.+)$", card, re.MULTILINE)
    assert parts[1:] == ["Verdict of the run", "Scores", "Training data", "Recipe", "Contract"]
    shown = re.sub(r"\\(.)", r"\1", card)  # of Markdown
    for line in read_verdict(root / "mine").lines:
        assert (f"- {line}" in shown) is not line.startswith(" ")
    assert "embedtrain-train" not in card, "commands of this machine are nobody else's"


def test_a_card_has_the_scores_as_table_picture_and_metadata(folder, root):
    card = ModelCard.load(folder / "README.md")
    scores = read_scores(root / "mine/scores.jsonl")
    last = max(score.step for score in scores)
    table = {
        int(row[0]): row[1:]
        for row in (re.findall(r"[^|]+", line) for line in card.text.splitlines() if re.match(r"\| \d", line))
    }
    before, after = (cells([score for score in scores if score.step == step]) for step in (0, last))
    assert table.keys() == {1, 2, 4}
    for cell in after:
        column = [8, 16, 32].index(cell.dim)
        assert table[cell.layer][column].strip() == f"{before[cell]:.1f} → {after[cell]:.1f}"
    assert (folder / "heat_map.png").read_bytes() == (root / "mine/heat_map.png").read_bytes()
    assert "](heat_map.png)" in card.text
    assert card.data.eval_results


def test_a_card_shows_how_to_load_it_and_nothing_of_this_machine(folder, root, small_data):
    card = (folder / "README.md").read_text("utf-8")
    for way in ("SentenceTransformer(", "embedtrain.load(", "onnxruntime.InferenceSession("):
        assert way in card
    assert "- train.jsonl" in card.replace("\\", "")
    assert yaml.safe_load(re.findall(r"```yaml\n(.*?)```", card, re.DOTALL)[0])["optim"]["lr"] == 1e-3
    assert str(root) not in card
    assert str(small_data) not in card


def test_the_folder_stays_one_that_we_wrote(folder):
    assert stranger(folder) is None


def test_a_folder_without_a_run_has_no_story(tmp_path):
    assert story_of(tmp_path, "scores") == ("scores", (), "", "", None, (), "")


def test_a_grid_without_scores_or_of_different_tasks_is_empty(root):
    scores = read_scores(root / "mine/scores.jsonl")
    other = [score._replace(task="other") for score in scores if score.cell == Cell(1, 8)]
    assert grid_of([], 0) == ("", "")
    assert grid_of([*scores, *other], max(score.step for score in scores)) == ("", "")


def test_paths_are_their_last_names():
    data = {"train": ["/home/me/rows.jsonl", {"source": "org/set"}, "hf://a/b/c.parquet"]}
    assert data_of(data) == ["rows.jsonl", "org/set", "c.parquet"]
    given = {
        "name": "a",
        "seed": 3,
        "backbone": {"path": "/home/me/model"},
        "evaluation": {"data_root": "/x"},
    }
    assert yaml.safe_load(recipe_of(given)) == {"seed": 3, "backbone": {"path": "model"}}
