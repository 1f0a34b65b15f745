"""No command deletes, replaces or moves what it did not write, whatever place it is given; two never meet."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from small_runs import command, flip, write_rows

from embedtrain.evaluation.catalogue.official import manifest
from embedtrain.files.locks import taken
from embedtrain.files.scores import read_scores

OLD = time.time() - 7200


def everything(root):
    """Each file below a folder with its bytes; locks, and what the commands read, are left out."""
    files = (path for path in root.rglob("*") if path.is_file() and not path.name.endswith(".lock"))
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def model(tiny_bert, tmp_path):
    return Path(shutil.copytree(tiny_bert, tmp_path / "model"))


@pytest.fixture
def rows(tmp_path):
    lines = [{"query": f"cat {n} sleeps", "positive": f"dog {n} runs"} for n in range(16)]
    return write_rows(tmp_path / "rows.jsonl", lines)


def thesis(place):
    place.mkdir(parents=True, exist_ok=True)
    (place / "thesis.txt").write_text("years of work")
    (place / "config.yaml").write_text("server: {port: 80}\n")
    (place / "config.json").write_text("{}")


def report(place):
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text('{"mine": 1}')


def webpage(place):
    place.parent.mkdir(parents=True)
    place.write_text("<!doctype html><title>mine</title>")


def picture(place):
    place.mkdir()
    (place / "heat_map.png").write_bytes(b"mine")


# What a command line names, what is there already, and the words; MODEL, ROWS, DATA and ROOT are filled in.
NAMED = {
    "train": ("runs/x", thesis, "train name=x output_root=ROOT/runs overwrite=true"),
    "train, unasked": ("runs/x", thesis, "train name=x output_root=ROOT/runs"),
    "export": ("out", thesis, "export model=MODEL out=ROOT/out overwrite=true"),
    "export, unasked": ("out", thesis, "export model=MODEL out=ROOT/out"),
    "export to a graph": ("out", thesis, "export model=MODEL out=ROOT/out onnx=true overwrite=true"),
    "mine": ("out.jsonl", report, "mine source=ROWS out=ROOT/out.jsonl teacher.path=MODEL overwrite=true"),
    "mine, statistics": (
        "out.statistics.json",
        report,
        "mine source=ROWS out=ROOT/out.jsonl teacher.path=MODEL overwrite=true",
    ),
    "rotate": ("out", thesis, "rotate model=MODEL source=ROWS out=ROOT/out overwrite=true"),
    "merge": ("runs/x", thesis, "merge runs=[MODEL,MODEL] name=x output_root=ROOT/runs overwrite=true"),
    "merge, unasked": ("runs/x", thesis, "merge runs=[MODEL,MODEL] name=x output_root=ROOT/runs"),
    "pairs": ("out.jsonl", report, "pairs source=CORPUS out=ROOT/out.jsonl overwrite=true"),
    "pairs, statistics": (
        "out.statistics.json",
        report,
        "pairs source=CORPUS out=ROOT/out.jsonl overwrite=true",
    ),
    "evaluate": ("out", picture, "evaluate model=MODEL tasks=[find] data_root=DATA output=ROOT/out"),
    "evaluate to a file": ("out", report, "evaluate model=MODEL tasks=[find] data_root=DATA output=ROOT/out"),
    "doctor": ("out.json", report, "doctor name=x doctor.out=ROOT/out.json"),
    "report": ("out/report.html", webpage, "report runs=[ROOT/model] output=ROOT/out"),
    "compare": ("out/comparison.json", report, "compare runs=[nowhere] output=ROOT/out"),
}


@pytest.mark.parametrize("case", NAMED)
def test_what_is_there_stays_and_overwriting_is_not_advised(
    case, small_run, small_data, model, rows, tmp_path, error_of
):
    place, make, line = NAMED[case]
    make(tmp_path / place)
    before = everything(tmp_path)
    name, *words = (
        line.replace("MODEL", str(model))
        .replace("ROWS", str(rows))
        .replace("CORPUS", f"{small_data}/retrieval/find/corpus.jsonl")
        .replace("DATA", str(small_data))
        .split()
    )
    words = [word.replace("ROOT", str(tmp_path)) for word in words]
    message = error_of(name, *(small_run if name in ("train", "doctor") else []), *words)
    assert "overwrite=true" not in message, message
    assert str(tmp_path / place) in message or str((tmp_path / place).parent) in message, message
    assert everything(tmp_path) == before


@pytest.mark.parametrize("out", ["model", ".", "link"])
def test_an_export_never_replaces_what_it_reads(model, tmp_path, monkeypatch, error_of, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(model)
    before = everything(tmp_path)
    error_of("export", f"model={model}", f"out={out}", "overwrite=true")
    assert everything(tmp_path) == before


def test_an_export_replaces_an_export_and_no_more(model, tmp_path, error_of):
    words = [f"model={model}", "layer=1", "dim=8", f"out={tmp_path}/cut"]
    command("export", *words)
    assert "pass overwrite=true" in error_of("export", *words)
    command("export", *words, "overwrite=true")
    (tmp_path / "cut/notes.txt").write_text("mine")
    assert "holds notes.txt, which embedtrain did not write" in error_of("export", *words, "overwrite=true")
    assert (tmp_path / "cut/notes.txt").exists()


@pytest.mark.parametrize("key", ["source", "corpus"])
def test_mining_never_replaces_what_it_reads(model, rows, tmp_path, error_of, key):
    other = shutil.copy(rows, tmp_path / "other.jsonl")
    read = {"source": rows, "corpus": rows} | ({"corpus": other} if key == "source" else {"source": other})
    words = [f"{name}={path}" for name, path in read.items()]
    before = everything(tmp_path)
    message = error_of("mine", *words, f"out={rows}", f"teacher.path={model}", "overwrite=true")
    assert "is what rows are read from" in message
    assert everything(tmp_path) == before


def foreign_stores(store):
    """Folders that are named like stores and are none, unused for long."""
    names = {
        "0123456789abcdef-float32": {"a.vectors": b"not ours"},
        "0123456789abcdee-float32": {"a.vectors": b"ETVEC003" + bytes(64), "thesis.txt": b"mine"},
        "0123456789abcded-my-float16": {"notes/b.vectors": b"ETVEC003" + bytes(64)},
    }
    for name, files in names.items():
        for path, content in files.items():
            (store / name / path).parent.mkdir(parents=True, exist_ok=True)
            (store / name / path).write_bytes(content)
    linked = store.parent / "linked/0123456789abcdec-float32"
    linked.mkdir(parents=True)
    (linked / "a.vectors").write_bytes(b"ETVEC003" + bytes(64))
    (store / linked.name).symlink_to(linked)
    for path in store.parent.rglob("*"):
        os.utime(path, (OLD, OLD), follow_symlinks=False)


def test_a_store_makes_room_among_stores_alone(model, small_data, tmp_path):
    store = tmp_path / "store"
    foreign_stores(store)
    ours = store / "00000000000000aa-float32"
    ours.mkdir()
    (ours / "a.vectors").write_bytes(b"ETVEC003" + bytes(12_000))
    for path in (ours / "a.vectors", ours):
        os.utime(path, (OLD, OLD))
    before = everything(store) | everything(tmp_path / "linked")
    words = [f"model={model}", "tasks=[find]", f"data_root={small_data}", f"output={tmp_path}/out"]
    command("evaluate", *words, f"store={store}", "store_gb=0.00001", "layers=[1]", "dims=[8]")
    after = everything(store) | everything(tmp_path / "linked")
    assert not ours.exists()
    assert before.items() - {item for item in before.items() if ours.name in item[0]} <= after.items()


@pytest.mark.parametrize("path", ["../../precious", "/precious", "a/../../precious", ".", "a//b"])
@pytest.mark.parametrize("field", ["folder", "path"])
def test_a_manifest_that_leads_out_of_its_folder_is_refused(tmp_path, error_of, path, field):
    (tmp_path / "precious").write_text("mine")
    root = tmp_path / "mirror"
    root.mkdir()
    file = manifest.File("data.parquet", 1, "0" * 64)
    repo = manifest.Repo("a/b", "dataset", "r", "a/b@r", ("find",), (file,))
    manifest.write_manifest(root, [repo])
    facts = json.loads((root / manifest.NAME).read_text())
    entry = facts["repos"][0]
    path = path.replace("/precious", str(tmp_path / "precious")) if path.startswith("/") else path
    (entry if field == "folder" else entry["files"][0])[field] = path
    (root / manifest.NAME).write_text(json.dumps(facts))
    message = error_of("evaluate", "prefetch=true", f"data_root={root}", "tasks=[STSBenchmark]")
    assert "is no path inside of the folder" in message
    assert (tmp_path / "precious").read_text() == "mine"


def hold(place, ready, done):
    with taken(Path(place)):
        Path(ready).touch()
        while not Path(done).exists():
            time.sleep(0.02)


MAKES = "maker=representative_words maker.common=1"  # of documents of one short line
AT_ONCE = {
    "evaluate": "evaluate model=MODEL tasks=[find] data_root=DATA layers=[1] dims=[8] output=ROOT/out",
    "mine": "mine source=ROWS out=ROOT/out teacher.path=MODEL",
    "train": "train name=out output_root=ROOT trainer.max_steps=1",
    "merge": "merge runs=[MODEL,MODEL] name=out output_root=ROOT",
    "pairs": f"pairs source=DATA/retrieval/find/corpus.jsonl {MAKES} out=ROOT/out",
    "rotate": "rotate model=MODEL source=ROWS out=ROOT/out epochs=1",
}


@pytest.mark.parametrize("name", AT_ONCE)
def test_two_commands_never_write_one_place(
    name, small_run, small_data, model, rows, tmp_path, error_of, processes
):
    out = "out.jsonl" if name in ("mine", "pairs") else "out"
    line = AT_ONCE[name].replace("MODEL", str(model)).replace("ROWS", str(rows))
    _, *words = line.replace("DATA", str(small_data)).replace("ROOT/out", f"{tmp_path}/{out}").split()
    words = [
        *(small_run if name == "train" else []),
        *(word.replace("ROOT", str(tmp_path)) for word in words),
    ]
    holder = processes.call(Path(__file__), "hold", tmp_path / out, tmp_path / "ready", tmp_path / "done")
    while not (tmp_path / "ready").exists():
        assert holder.is_alive()
        time.sleep(0.02)
    assert f"another command is working on {tmp_path}/{out}" in error_of(name, *words)
    (tmp_path / "done").touch()
    holder.join()
    command(name, *words)
    assert (tmp_path / out).exists()


def test_two_models_evaluated_into_one_output_keep_their_rows(model, small_data, tmp_path):
    one, other = (Path(shutil.copytree(model, tmp_path / name)) for name in ("one", "other"))
    words = ["tasks=[find]", f"data_root={small_data}", "layers=[1]", "dims=[8]", f"output={tmp_path}/out"]
    for each in (one, other):
        command("evaluate", f"model={each}", *words)
    assert {score.run for score in read_scores(tmp_path / "out/scores.jsonl")} == {"one", "other"}


EVALUATE = "tasks=[find] layers=[1] dims=[8]".split()


def test_two_models_of_one_name_never_share_a_folder_of_scores(model, small_data, tmp_path, error_of):
    one, other = (Path(shutil.copytree(model, tmp_path / place / "bert")) for place in "ab")
    flip(other / "model.safetensors", -1)
    words = [*EVALUATE, f"data_root={small_data}", f"output_root={tmp_path}/runs"]
    out = tmp_path / "runs/evaluation-bert"
    command("evaluate", f"model={one}", *words)
    before = everything(tmp_path)
    message = error_of("evaluate", f"model={other}", *words)
    assert message.startswith(f"error: {out} holds scores of {one}, which has the name bert too: ")
    assert everything(tmp_path) == before
    command("evaluate", f"model={other}", *words, message.rpartition(" ")[2])  # the cure
    moved = shutil.move(one, tmp_path / "c/bert")  # the same weights elsewhere
    command("evaluate", f"model={moved}", *words)
    assert everything(out)["scores.jsonl"] == before["runs/evaluation-bert/scores.jsonl"]


def test_an_evaluation_never_writes_into_the_folder_of_a_run(
    small_run, model, small_data, tmp_path, error_of
):
    words = [*small_run, "trainer.max_steps=1", f"output_root={tmp_path}", "evaluation.tasks=[find]"]
    command("train", *words, f"evaluation.data_root={small_data}", "name=x")
    before = everything(tmp_path)
    words = [*EVALUATE, f"data_root={small_data}", f"model={tmp_path}/x"]
    message = error_of("evaluate", *words, f"output={tmp_path}/x")
    assert "is the folder of a run" in message
    assert everything(tmp_path) == before
    command("evaluate", *words, message.rpartition(" ")[2])
