"""Each diagnosis provoked by a run that has the fault, and its cure typed; the verdict of a sound run."""

import random
import shlex

import pytest
from small_runs import command, without, write_rows

from embedtrain.cli.launch import settings_from
from embedtrain.files.measured.health import read_health
from embedtrain.files.measured.verdict import read_verdict
from embedtrain.files.scores import read_scores, write_scores
from embedtrain.run.results.verdict import changes_of

ALL_REMOVED = "negatives.rules=[{_target_: embedtrain.rules.Abs, most: -1, by: student}]"
WORDS = "cat dog bird fish man woman child plays runs eats sleeps red blue green moon old new".split()
LORA = ["backbone.lora.rank=2", "optim.lr=1e-12"]
FAULTS = {  # finding: what provokes it, a word of its text, a word of its cure
    "unchanged_weights": (["optim.lr=1e-12"], "every weight is what it was", "optim.lr=2e-05"),
    "merged_to_nothing": (LORA, "too small for adapters", "optim.lr=0.0001"),
    "learning_rate_low": (["optim.lr=1e-7", "trainer.max_steps=40"], "is too low", "optim.lr=1e-06"),
    "learning_rate_high": (["optim.lr=0.5", "trainer.gradient_clip_val=null"], "too high", "optim.lr=0.05"),
    "temperature": (["loss.temperature=5"], "nearly alike", "loss.temperature=0.05"),
    "negatives_removed": ([ALL_REMOVED], "rules remove 100%", "negatives=all"),
}


def trained(words, root, name, *more):
    """The folder of a run of a few steps; later words replace earlier ones."""
    keys = [word.partition("=")[0] for word in more]
    command("train", *without(words, *keys), *more, f"name={name}", f"output_root={root}")
    return root / name


def composes(cure):
    """Whether the words of a cure are settings that there are."""
    program, *words = shlex.split(cure)
    assert program == "embedtrain-train"
    return settings_from("train", words)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_and_its_cure_can_be_typed(name, small_run, tmp_path, capsys):
    words, said, cure = FAULTS[name]
    folder = trained(small_run, tmp_path, "faulty", *words)
    found = {item.name: item for item in read_verdict(folder).findings}
    assert name in found, found
    assert said in found[name].text
    assert found[name].cure.endswith(f"name=faulty-2 {cure}")
    settings = composes(found[name].cure)
    assert settings.name == "faulty-2"
    assert found[name].cure in capsys.readouterr().err


def test_vectors_that_all_became_alike_are_a_collapse(small_run, small_data, tmp_path):
    words = ["optim.lr=0.05", "trainer.gradient_clip_val=null", "trainer.max_steps=20"]
    words += ["evaluation.tasks=[local]", f"evaluation.data_root={small_data}"]
    folder = trained(small_run, tmp_path, "alike", *words)
    found = {item.name: item for item in read_verdict(folder).findings}
    assert "L4_D32 gives different texts a mean cosine of " in found["collapse"].text
    assert found["collapse"].text.endswith("the whole model has collapsed")
    assert found["collapse"].cure.endswith("name=alike-2 optim.lr=0.005")
    composes(found["collapse"].cure)
    last = [line for line in read_health(folder) if line.step == 20 and (line.layer, line.dim) == (4, 32)]
    assert [line.effective_rank < 1.5 for line in last] == [True]


def test_negatives_as_good_as_the_positive_are_found(small_run, tmp_path):
    draw = random.Random(0)

    def shuffled(words):
        return " ".join(draw.sample(words, len(words)))

    rows = []
    for text in (draw.sample(WORDS, 5) for _ in range(800)):
        texts = [shuffled(text) for _ in range(5)]
        rows.append({"query": texts[0], "positive": texts[1], "negatives": texts[2:]})
    place = write_rows(tmp_path / "rows.jsonl", rows)
    steady = ["trainer.max_steps=100", "optim.lr=1e-4"]  # 32 rows are looked at: larger steps shuffle them
    folder = trained(small_run, tmp_path, "same", f"data.train={place}", *steady)
    found = {item.name: item for item in read_verdict(folder).findings}
    assert "false_negatives" in found
    assert found["false_negatives"].cure.endswith("negatives=qwen3")
    composes(found["false_negatives"].cure)


@pytest.fixture(scope="module")
def against_the_task(small_run, tmp_path_factory):
    """A run whose rows say the opposite of what its task asks."""
    draw, root = random.Random(0), tmp_path_factory.mktemp("forgets")
    texts = [" ".join(draw.sample(WORDS, 4)) for _ in range(80)]
    near = [f"{text} {draw.choice(WORDS)}" for text in texts]
    far = ["sun rain river tree house bank money word " + text.split()[0] for text in texts[::-1]]
    columns = {"query": texts, "positive": far, "negatives": [[text] for text in near]}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    find = root / "data/retrieval/find"
    write_rows(find / "queries.jsonl", [{"id": f"q{n}", "text": text} for n, text in enumerate(texts)])
    write_rows(find / "corpus.jsonl", [{"id": f"d{n}", "text": text} for n, text in enumerate(near)])
    judged = [{"query_id": f"q{n}", "corpus_id": f"d{n}", "score": 1} for n in range(len(texts))]
    write_rows(find / "qrels.jsonl", judged)
    words = ["optim.lr=3e-3", "trainer.max_epochs=4", "evaluation.tasks=[local]"]
    words.append(f"evaluation.data_root={root / 'data'}")
    place = write_rows(root / "rows.jsonl", rows)
    return trained(small_run, root, "forgets", f"data.train={place}", *words)


def test_a_loss_that_falls_while_tasks_fall_is_forgetting(against_the_task):
    verdict = read_verdict(against_the_task)
    (change,) = verdict.changes
    assert (change.task, change.verdict) == ("find", "worse")
    assert change.low <= change.difference <= change.high < 0
    found = {item.name: item for item in verdict.findings}
    assert "forgetting" in found
    assert found["forgetting"].cure.endswith("optim.lr=0.0006")
    assert composes(found["forgetting"].cure).optim.settings["lr"] == 0.0006


def test_a_step_against_itself_is_not_distinguishable(against_the_task):
    for step in {score.step for score in read_scores(against_the_task / "scores.jsonl")}:
        (change,) = changes_of(against_the_task, step, first=step)
        assert (change.difference, change.verdict, change.p) == (0, "not distinguishable", 1)


def test_tasks_without_items_have_no_verdict(against_the_task, tmp_path):
    scores = read_scores(against_the_task / "scores.jsonl")
    write_scores(tmp_path / "scores.jsonl", scores)
    (change,) = changes_of(tmp_path, max(score.step for score in scores))
    assert (change.verdict, change.low) == (None, None)
    assert change.difference < 0


def test_a_verdict_is_short_and_names_the_cut_to_ship(against_the_task):
    verdict = read_verdict(against_the_task)
    kinds = [line.partition(":")[0] for line in verdict.lines]
    assert kinds[:3] == ["weights", "tasks", "ship"]
    assert len(verdict.lines) <= 3 + 2 * len(verdict.findings)
    assert verdict.cut.ms > 0
    assert verdict.cut.query_ms > 0
    assert 0.98 <= verdict.cut.share
