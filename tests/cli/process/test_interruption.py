"""Ctrl-C at any moment of any command, and a reader that leaves: one sentence, its status, no traceback."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
from datasets import Dataset
from processes import LIMIT
from small_runs import command

from embedtrain.cli.commands import COMMANDS

# Runs a command that sends itself Ctrl-C: as a module is first imported, as a file is first opened to write
# below a folder, at one of the events of its work (files opened, modules imported, ...), or as it ends. The
# moment "count" presses nothing and says how many events there are. A folder stands for the hub.
PRESS = """
import atexit, os, shutil, signal, sys
moment, what, name, *words = sys.argv[1:]
events, hub = 0, os.environ.get("HUB")
if hub:
    import huggingface_hub
    def fetch(repo, *, local_dir, **_):
        return shutil.copytree(f"{hub}/{repo}", local_dir, dirs_exist_ok=True)
    huggingface_hub.snapshot_download = fetch
def works():
    module = sys.modules.get("embedtrain.cli.process.interruption")
    return getattr(getattr(module, "INTERRUPTION", None), "_working", False)
def press():
    os.kill(os.getpid(), signal.SIGINT)
def hook(event, given):
    global moment, events
    if moment in ("count", "middle") and works():
        events += 1
        if moment == "middle" and events == int(what):
            moment = ""
            press()
    imports = event == "import" and given[0] == what
    path = str(given[0]) if event == "open" else ""
    writes = path.startswith(what) and given[1] not in (None, "r", "rb") if event == "open" else False
    if imports and moment == "import" or writes and moment == "write":
        moment = ""
        press()
sys.addaudithook(hook)
if moment == "end":
    atexit.register(press)
if moment == "count":
    atexit.register(lambda: print("events:", events))
sys.argv = [f"embedtrain-{name}", *words]
from importlib import import_module
import_module(f"embedtrain.cli.{name}").main()
"""


MAKES = ["maker=representative_words", "maker.common=1.0"]  # of documents of one short line


@pytest.fixture(scope="session")
def examples(small_run, small_data, tiny_bert, tmp_path_factory):
    """(command, folder) -> its words, which write below the folder."""
    root = tmp_path_factory.mktemp("measured")
    words = [*small_run, f"output_root={root}", "trainer.max_steps=2", "evaluation.tasks=[local]"]
    made, others = root / "x", [root / "a", root / "b"]

    def of(name, folder):
        run = [*small_run, "name=y", f"output_root={folder}", "trainer.max_steps=30"]
        if name in ("compare", "report") and not made.exists():
            command("train", *words, f"evaluation.data_root={small_data}", "name=x")
        if name == "merge" and not others[0].exists():
            for each in others:
                command("train", *run[:-3], f"output_root={root}", "trainer.max_steps=2", f"name={each.name}")
        mined = f"source={small_data}/train.jsonl out={folder}/y.jsonl teacher=model teacher.path={tiny_bert}"
        return {
            "train": run,
            "doctor": run,
            "evaluate": [
                f"model={tiny_bert}",
                "tasks=[local]",
                f"data_root={small_data}",
                f"output={folder}/y",
            ],
            "compare": [f"runs=[{made}]", f"output={folder}/y", "resamples=100"],
            "report": [f"runs=[{made}]", f"output={folder}/y"],
            "export": [f"model={tiny_bert}", "layer=2", "dim=8", f"out={folder}/y"],
            "rotate": [f"model={tiny_bert}", f"out={folder}/y", f"source={small_data}/train.jsonl"],
            "merge": [f"runs=[{others[0]},{others[1]}]", f"output_root={folder}", "name=y"],
            "pairs": [f"source={small_data}/retrieval/find/corpus.jsonl", f"out={folder}/y.jsonl", *MAKES],
            "mine": [*mined.split(), "selection.depth=8", "selection.per_row=2"],
            "prefetch": ["prefetch=true", "tasks=[STSBenchmark]", f"data_root={folder}/y"],
        }[name]

    return of


@pytest.fixture(scope="session")
def hub(tmp_path_factory):
    """A folder as the hub, with the rows of one task."""
    folder = tmp_path_factory.mktemp("hub")
    rows = [{"sentence1": f"cat {n}", "sentence2": f"dog {n % 3}", "score": n % 6} for n in range(12)]
    place = folder / "mteb/stsbenchmark-sts"
    place.mkdir(parents=True)
    Dataset.from_list(rows).to_parquet(place / "test.parquet")
    return folder


def of(name):
    """The command that does it: a prefetch is one of `evaluate`."""
    return "evaluate" if name == "prefetch" else name


def pressed(moment, what, name, words, folder, hub=None):
    """The exit status and all output of a command that presses Ctrl-C at a moment of its own."""
    given = [sys.executable, "-c", PRESS, moment, str(what), of(name), *words]
    fetches = {"HUB": str(hub)} if name == "prefetch" else {}
    done = subprocess.run(
        given, cwd=folder, capture_output=True, text=True, timeout=LIMIT, env=os.environ | fetches
    )
    return done.returncode, done.stdout + done.stderr


def assert_stopped(status, text, name):
    assert "Traceback" not in text, text
    assert status == 130, text
    sentences = [line for line in text.splitlines() if line.startswith("stopped")]
    assert len(sentences) == 1, text
    assert COMMANDS[of(name)].again in sentences[0] or "stopped by SIGINT" in sentences[0], text


@pytest.mark.parametrize("name", COMMANDS)
def test_before_anything_is_known(name, tmp_path):
    status, text = pressed("import", "embedtrain.cli.commands", name, [], tmp_path)
    assert (status, text) == (130, "stopped; nothing was done yet\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_while_hydra_is_imported(name, tmp_path):
    status, text = pressed("import", "hydra", name, ["show=true"], tmp_path)
    assert (status, text) == (130, f"stopped; {COMMANDS[name].again}\n")


@pytest.mark.parametrize(
    ("name", "moment", "what"),
    [
        *((name, "import", "torch") for name in ("export", "evaluate")),
        *(
            pytest.param(name, *moment, marks=pytest.mark.slow)
            for name in (*COMMANDS, "prefetch")
            for moment in (("write", "FOLDER"), ("middle", ""), ("end", ""))
        ),
    ],
)
def test_while_it_works(name, moment, what, examples, hub, tmp_path):
    words = examples(name, tmp_path)
    if moment == "middle":
        whole = tmp_path / "whole"
        whole.mkdir()
        _, said = pressed("count", "", name, examples(name, whole), whole, hub)
        what = str(int(re.search(r"events: (\d+)", said)[1]) // 2)
    status, text = pressed(moment, what.replace("FOLDER", f"{tmp_path}/"), name, words, tmp_path, hub)
    if moment == "end":  # its work is done and said
        assert (status, "Traceback" in text) == (130, False), text
    else:
        assert_stopped(status, text, name)
    assert [
        path.name for path in tmp_path.iterdir() if path.name.startswith(".") and path.suffix != ".lock"
    ] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)  # a hub that answers is inside the process of a prefetch
def test_at_every_tenth_of_any_command(name, examples, tmp_path):
    """To the whole group of processes, as a terminal does it."""

    def run(number, after):
        folder = tmp_path / str(number)
        folder.mkdir()
        more = ["data.num_workers=2", "trainer.max_steps=60"] if name == "train" else []
        given = [sys.executable, "-m", f"embedtrain.cli.{name}", *examples(name, folder), *more]
        begun = time.monotonic()
        with (folder / "log").open("w+") as log:
            process = subprocess.Popen(given, cwd=folder, stdout=log, stderr=log, start_new_session=True)
            try:
                process.wait(after)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGINT)
                process.wait(LIMIT)
        return process.returncode, (folder / "log").read_text(), time.monotonic() - begun

    status, text, length = run("whole", LIMIT)
    assert status in (0, 1), text  # the doctor's 1 is a finding
    for number in range(1, 11):
        status, text, _ = run(number, max(0.2, number * length / 10))
        # before and after any of our code runs, Python dies of the signal: -2, which a shell calls 130
        if status not in (0, -signal.SIGINT) and "report: " not in text:
            assert_stopped(status, text, name)
        assert "Traceback" not in text, text


@pytest.mark.parametrize(
    ("name", "words"),
    [("train", ["--help"]), ("train", ["name=x", "data.train=y", "show=true"]), ("nonsense", [])],
)
def test_a_reader_that_leaves_ends_nothing(name, words, tmp_path):
    given = [sys.executable, "-c", "from embedtrain.cli.start import main; main()", name, *words]
    for stream in ("stdout", "stderr"):
        read, write = os.pipe()
        os.close(read)
        others = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | {stream: write}
        done = subprocess.run(given, cwd=tmp_path, **others)
        os.close(write)
        assert done.returncode == (1 if name == "nonsense" else 0)
        assert not done.stderr or b"no command" in done.stderr


@pytest.mark.slow
def test_a_run_goes_on_when_nobody_reads(small_run, tmp_path):
    """Its table and its progress go nowhere; its model is written."""
    read, write = os.pipe()
    os.close(read)
    words = [*small_run, "name=x", f"output_root={tmp_path}", "trainer.max_steps=2"]
    given = [sys.executable, "-m", "embedtrain.cli.train", *words]
    done = subprocess.run(given, cwd=tmp_path, stdout=write, stderr=write)
    os.close(write)
    assert done.returncode == 0
    assert (tmp_path / "x/model/model.safetensors").exists()
