"""embedtrain-merge as a person runs it: a run folder like any other, its ingredients beside it."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_runs import command, flip

import embedtrain
from embedtrain.files.measured.merge import read_merge
from embedtrain.files.measured.verdict import read_verdict
from embedtrain.files.run_record import read_record
from embedtrain.files.scores import read_scores
from embedtrain.types import InputError

ROUNDED = 2e-5  # of mteb's scores
EVALUATION = "evaluation.tasks=[find] evaluation.layers=[2,4] evaluation.dims=[16,32]"


@pytest.fixture(scope="module")
def runs(small_run, small_data, tmp_path_factory):
    """Two measured runs of one base, "a" and "b", that differ in their seed."""
    root = tmp_path_factory.mktemp("runs")
    words = [*small_run, *EVALUATION.split(), f"evaluation.data_root={small_data}", f"output_root={root}"]
    for seed, name in enumerate("ab"):
        command("train", *words, f"name={name}", f"seed={seed}", "trainer.max_steps=4")
    return root


@pytest.fixture(scope="module")
def plain(small_run, tmp_path_factory):
    """The same two, not measured."""
    root = tmp_path_factory.mktemp("plain")
    for seed, name in enumerate("ab"):
        command(
            "train", *small_run, f"output_root={root}", f"name={name}", f"seed={seed}", "trainer.max_steps=2"
        )
    return root


def words_of(runs, folder, *more):
    return [f"runs=[{runs}/a,{runs}/b]", f"output_root={folder}", "name=m", *more]


def state(folder):
    return load_file(folder / "model/model.safetensors")


def everything(root):
    files = (path for path in sorted(root.rglob("*")) if path.is_file() and path.suffix != ".lock")
    return {path: path.read_bytes() for path in files}


def test_an_average_is_a_run_folder_with_all_models_in_one_table(runs, tmp_path, capsys):
    command("merge", *words_of(runs, tmp_path))
    shown = capsys.readouterr().out
    one, other, found = (state(folder) for folder in (runs / "a", runs / "b", tmp_path / "m"))
    for key, tensor in found.items():
        assert torch.equal(tensor, ((one[key].double() + other[key].double()) / 2).float())
    merge = read_merge(tmp_path / "m")
    assert [part.name for part in merge.parts] == ["a", "b"]
    scores = read_scores(tmp_path / "m/scores.jsonl")
    assert {(score.step, score.run) for score in scores} == {(0, "m"), (4, "m")}, "the base, and the merge"
    assert len({(score.layer, score.dim) for score in scores}) == 4
    assert not (tmp_path / "m/ingredients").exists(), "what the runs measured of themselves serves"
    main = [score.value for score in scores if score.step == 4 and score.metric == "ndcg_at_10"]
    assert merge.score == pytest.approx(sum(main) / 4)
    for part, name in zip(merge.parts, "ab", strict=True):
        own = read_scores(runs / name / "scores.jsonl")
        values = [score.value for score in own if score.step == 4 and score.metric == "ndcg_at_10"]
        assert part.compared.score == pytest.approx(sum(values) / 4, abs=ROUNDED)
        assert part.compared.low <= part.compared.difference <= part.compared.high
        assert part.compared.difference == pytest.approx(merge.score - part.compared.score, abs=ROUNDED)
    assert "merged - this" in shown
    verdict = read_verdict(tmp_path / "m")
    (change,) = verdict.changes
    whole = {
        (score.step, score.layer, score.dim): score.value for score in scores if score.metric == "ndcg_at_10"
    }
    assert change.task == "find"
    assert [change.before, change.after] == pytest.approx([whole[0, 4, 32], whole[4, 4, 32]], abs=ROUNDED)
    assert verdict.lines[-1].startswith("ship: ")
    assert not verdict.findings
    assert f"made of: {tmp_path}/m/merge.json" in shown
    base = [score for score in read_scores(runs / "a/scores.jsonl") if score.step == 0]
    assert [score.value for score in scores if score.step == 0] == [score.value for score in base]


def test_what_reads_a_run_reads_a_merge(runs, tmp_path, small_data, plotly):
    command("merge", *words_of(runs, tmp_path))
    folder = tmp_path / "m"
    command("evaluate", f"model={folder}", "tasks=[find]", f"data_root={small_data}", f"output={tmp_path}/e")
    command("export", f"model={folder}", "layer=2", "dim=16", f"out={tmp_path}/cut")
    command("compare", f"runs=[{runs}/a,{folder}]", f"output={tmp_path}/c", "resamples=100")
    command("report", str(folder), f"{runs}/a", f"output={tmp_path}/r")
    command("merge", f"runs=[{folder},{runs}/a]", f"output_root={tmp_path}", "name=again", "method=ties")
    again = read_merge(tmp_path / "again")
    assert again.base == read_record(runs / "a/config.yaml").base["path"]
    assert "m" in (tmp_path / "r/report.html").read_text("utf-8")
    rows = json.loads((tmp_path / "c/comparison.json").read_text("utf-8"))["rows"]
    assert {row["second"]["run"] for row in rows} == {str(folder)}
    card = (folder / "model/README.md").read_text("utf-8")
    assert "| layer | dim 16 | dim 32 |" in card


def test_the_base_is_recorded_found_and_checked(plain, tiny_bert, tmp_path, error_of):
    record = read_record(plain / "a/config.yaml")
    assert record.base["path"] == str(tiny_bert.resolve())
    half = words_of(plain, tmp_path, "base_share=0.5")
    command("merge", *half)
    start, one, other = load_file(tiny_bert / "model.safetensors"), state(plain / "a"), state(plain / "b")
    for key, tensor in state(tmp_path / "m").items():
        mean = (one[key].double() + other[key].double()) / 2
        torch.testing.assert_close(tensor, ((mean.float().double() + start[key].double()) / 2).float())
    moved = shutil.copytree(plain, tmp_path / "moved")
    text = (moved / "a/config.yaml").read_text("utf-8")
    (moved / "a/config.yaml").write_text(text.replace(str(tiny_bert), str(tmp_path / "gone")), "utf-8")
    message = error_of("merge", *words_of(moved, tmp_path / "n", "method=ties"))
    assert "what a began with cannot be read" in message
    assert message.endswith("Give the model that training began with as base=FOLDER")
    command(
        "merge",
        *words_of(moved, tmp_path / "n", "method=ties", f"base={tiny_bert}"),
    )
    other = shutil.copytree(tiny_bert, tmp_path / "gone")
    flip(other / "model.safetensors", -1)
    assert "is not what a began with: its weights have changed" in error_of(
        "merge", *words_of(moved, tmp_path / "o", "method=ties")
    )


METHODS = {
    "weighted": ["method.shares=[3,1]"],
    "slerp": [],
    "task_arithmetic": [],
    "ties": [],
    "dare": [],
    "dare_ties": [],
    "greedy": ["probe"],
    "cocktail": ["probe"],
    "self_positioning": ["probe", "method.steps=2"],
}


@pytest.mark.parametrize("name", METHODS)
def test_each_method_gives_a_model(name, plain, small_data, tmp_path):
    probe = f"probe={small_data}/validation.jsonl"
    more = [probe if word == "probe" else word for word in METHODS[name]]
    command("merge", *words_of(plain, tmp_path, f"method={name}", *more))
    found, one = state(tmp_path / "m"), state(plain / "a")
    assert found.keys() == one.keys()
    assert any(not torch.equal(found[key], one[key]) for key in one) or name == "greedy"
    said = read_merge(tmp_path / "m").chosen
    assert bool(said) == (name in ("weighted", "ties", "greedy", "cocktail", "self_positioning"))


def test_rows_with_scores_and_several_sources_make_a_probe(plain, small_data, tmp_path):
    rows = [{"query": f"cat {n} sleeps", "positive": f"dog {n} runs", "score": n / 8} for n in range(8)]
    (tmp_path / "scored.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    probe = f"probe=[{small_data}/validation.jsonl,{tmp_path}/scored.jsonl]"
    command("merge", *words_of(plain, tmp_path, "method=cocktail", probe))
    assert len(read_merge(tmp_path / "m").chosen) == 2


def test_a_killed_merge_goes_on(runs, tmp_path, monkeypatch):
    import embedtrain.run.merging.merge as merging

    words = words_of(runs, tmp_path)

    def stop(*_):
        raise KeyboardInterrupt

    for place in ("save_encoder", "measure_merged", "save_heat_map"):
        with monkeypatch.context() as patched:
            patched.setattr(merging, place, stop)
            with pytest.raises((KeyboardInterrupt, SystemExit)):
                command("merge", *words)
        if place == "save_encoder":
            with pytest.raises(InputError, match="is a run that has not finished"):
                embedtrain.load(tmp_path / "m")
    command("merge", *words)
    command("merge", *words_of(runs, tmp_path / "whole"))
    assert (tmp_path / "m/model/model.safetensors").read_bytes() == (
        tmp_path / "whole/m/model/model.safetensors"
    ).read_bytes()
    assert read_scores(tmp_path / "m/scores.jsonl") == read_scores(tmp_path / "whole/m/scores.jsonl")
    assert read_merge(tmp_path / "m") == read_merge(tmp_path / "whole/m")


def test_a_finished_merge_is_replaced_only_where_it_is_asked_for(plain, tmp_path, error_of):
    command("merge", *words_of(plain, tmp_path))
    before = everything(tmp_path / "m")
    message = error_of("merge", *words_of(plain, tmp_path, "method=slerp"))
    assert "holds a finished run" in message
    assert everything(tmp_path / "m") == before
    command("merge", *words_of(plain, tmp_path, "method=slerp", "overwrite=true"))
    assert read_merge(tmp_path / "m").method == "Slerp"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["runs=[RUNS/a]"], "merging takes two runs or more"),
        (["runs=[RUNS/a,RUNS/none]"], "RUNS/none"),
        (["method=greedy"], "method GreedySoup asks the loss on some rows: give probe=ROWS"),
        (["method=greedy", "probe=nowhere.jsonl"], "nowhere.jsonl"),
        (["method=greedy", "probe=DATA/validation.jsonl", "loss=gist"], "use loss=infonce"),
        (
            ["runs=[BERT,BERT]", "method=ties"],
            "does not say what it began with. Give that as base=FOLDER",
        ),
        (
            ["output_root=RUNS", "name=a", "overwrite=true"],
            "is to be merged: write the",
        ),
        (["evaluation.tasks=[fnid]", "evaluation.data_root=DATA"], "fnid"),
        (
            ["evaluation.tasks=[find]", "evaluation.data_root=DATA", "evaluation.layers=[9]"],
            "layer must be",
        ),
        (["base_share=2"], "base_share must be in 0..1"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    words, message, plain, small_data, tiny_bert, tmp_path, error_of
):
    def filled(text):
        return (
            text.replace("RUNS", str(plain)).replace("DATA", str(small_data)).replace("BERT", str(tiny_bert))
        )

    before = everything(plain)
    assert filled(message) in error_of("merge", *words_of(plain, tmp_path / "out"), *map(filled, words))
    assert everything(plain) == before
    assert not (tmp_path / "out/m").exists()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ("pooling=cls", "pooling"),
        ("backbone.max_length=32", "max_length"),
        ("+backbone.prompts={query: q}", "prompts"),
    ],
)
def test_contracts_that_differ_are_refused_by_field(change, field, plain, small_run, tmp_path, error_of):
    command("train", *small_run, f"output_root={tmp_path}", "name=x", "trainer.max_steps=1", change)
    message = error_of("merge", f"runs=[{plain}/a,{tmp_path}/x]", f"output_root={tmp_path}", "name=m")
    assert message.startswith(f"error: {field} is ")
    assert "in a and" in message


def test_a_damaged_ingredient_is_named(plain, tmp_path, error_of):
    broken = shutil.copytree(plain / "b", tmp_path / "b")
    (broken / "model/model.safetensors").write_bytes(b"no weights")
    message = error_of("merge", f"runs=[{plain}/a,{broken}]", f"output_root={tmp_path}", "name=m")
    assert str(broken) in message


def test_runs_with_adapters_merge_and_find_their_base(small_run, tiny_bert, tmp_path):
    lora = ["+backbone.lora.rank=2", f"output_root={tmp_path}", "trainer.max_steps=2"]
    for seed, name in enumerate("ab"):
        command("train", *small_run, *lora, f"name={name}", f"seed={seed}")
    command("merge", *words_of(tmp_path, tmp_path, "method=task_arithmetic", "method.scale=0.5"))
    start, one, other = (
        load_file(tiny_bert / "model.safetensors"),
        state(tmp_path / "a"),
        state(tmp_path / "b"),
    )
    for key, tensor in state(tmp_path / "m").items():
        torch.testing.assert_close(tensor, (one[key] + other[key]) / 2)
    assert any(not torch.equal(start[key], one[key]) for key in one)


def test_in_python_the_result_is_a_run(plain, tmp_path):
    run = embedtrain.merge([embedtrain.load(plain / "a"), plain / "b"], output_root=tmp_path)
    assert run.folder == Path(tmp_path / "merged-a-b")
    assert run.model.encode(["a cat"], layer=2, dim=16).shape == (1, 16)
    with pytest.raises(InputError, match="runs must be a list"):
        embedtrain.merge(3)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["method=weighted", "method.shares=[3]"], "shares has 1 numbers for 2 runs"),
        (["method=weighted", "method.shares=[a,b]"], r"method\.shares must be a list of numbers"),
        (["method=task_arithmetic", "method.scale=abc"], r"method\.scale must be a number, got 'abc'"),
    ],
)
def test_a_method_that_cannot_merge_them_writes_nothing(plain, tmp_path, capsys, more, message):
    with pytest.raises(SystemExit):
        command("merge", *words_of(plain, tmp_path / "out", *more))
    assert re.search(message, capsys.readouterr().err)
    assert everything(tmp_path) == {}
