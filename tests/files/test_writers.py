"""Every writer of files on a disk that is read-only, full or without locks: one line that names the file, and
nothing of the old is lost."""

import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from bad_disk import FAULTS, content, refusing

from embedtrain.cli.launch import _errors_in_one_line
from embedtrain.data import labelled
from embedtrain.data.read.bad_rows import BadRows
from embedtrain.data.writing import write_rows
from embedtrain.evaluation.catalogue.official import manifest
from embedtrain.evaluation.per_item.stored import About, ItemValues, write_items
from embedtrain.files.atomic import atomic_folder, write_text
from embedtrain.files.checkpoint_folder import CheckpointFolder, StageFolder
from embedtrain.files.locks import taken
from embedtrain.files.measured.lines import replace_lines, write_value
from embedtrain.files.records import Raw
from embedtrain.files.run_folder import RunFolder
from embedtrain.files.run_record import write_record
from embedtrain.files.scores import (
    ModelFacts,
    TaskFacts,
    add_tasks,
    append_scores,
    claim_name,
    read_scores,
    write_scores,
)
from embedtrain.mining.tables import Table, write_table
from embedtrain.reporting.figures import save_heat_map
from embedtrain.reporting.leaderboard import leaderboard, write_leaderboard
from embedtrain.training.checkpoints import HashedCheckpointIO
from embedtrain.training.metrics import FileLogger
from embedtrain.types import InputError, Score
from embedtrain.vectors.store import VectorStore

SOURCES = Path(__file__).parents[2] / "embedtrain"


def score(value):
    return Score("run", 1, "task", "test", 2, 8, "main", value)


def logger(folder, value):
    made = FileLogger(folder)
    made.log_metrics({"loss": value}, step=0)
    made.finalize("success")


def bad_row(folder, value):
    place = f"rows.jsonl:{value}"
    BadRows("quarantine", folder / "bad").add(Raw(place, 1, b"no json"), InputError(f"{place}: no"))


def whole_folder(folder, value):
    with atomic_folder(folder / "model", overwrite=True) as fresh:
        (fresh / "weights").write_text(str(value) * 99)


def checkpoint(folder, value):
    checkpoints = CheckpointFolder(folder / "checkpoints")
    path = checkpoints.at(int(value * 100))
    HashedCheckpointIO().save_checkpoint({"a": value}, path)
    checkpoints.keep(path)


def begin_run(folder, value):
    run = RunFolder(folder, f"run{value}")
    try:
        run.prepare({"seed": value}, {}, {}, world_size=1)
    finally:
        run.release()


def items(folder, value):
    about = About("run", 1, "task", "test", 1, 8, "float32", "w", "d", "m", ("default",), {"main": "mean"})
    numbers = np.array([value])
    ids, values = np.array([1]), {"main": numbers}
    write_items(folder / "items/a.npz", ItemValues(about, ids, ids, numbers, values))


def vectors(folder, value):
    store = VectorStore(folder, identity="0" * 40, width=4)
    store.add([bytes([int(value * 100)]) * 16], np.full((1, 4), value, np.float32))


def triplets(folder, value):
    rows = folder.with_name("texts.jsonl")
    rows.write_text("".join(f'{{"text": "{n} {value}", "label": "{n % 2}"}}\n' for n in range(8)))
    labelled.main([str(rows), str(folder / "triplets.jsonl")])


FACTS = TaskFacts("STS", "sentence-similarity", "local", "r", "default", False)
FILE = manifest.File("data.parquet", 1, "0" * 64)
WRITERS = {
    "scores.jsonl": lambda folder, value: write_scores(folder / "scores.jsonl", [score(value)]),
    "scores.jsonl, a line": lambda folder, value: append_scores(folder / "scores.jsonl", [score(value)]),
    "tasks.json": lambda folder, value: add_tasks(folder / "tasks.json", {str(value): FACTS}),
    "models.json": lambda folder, value: claim_name(
        folder / "models.json", "a", ModelFacts("source", str(value))
    ),
    "leaderboard": lambda folder, value: write_leaderboard(folder, leaderboard([score(value)], {}, {})),
    "heat_map.png": lambda folder, value: save_heat_map(folder / "heat_map.png", [score(value)]),
    "metrics": logger,
    "a report": lambda folder, value: write_text(folder / "comparison.json", str(value)),
    "mined.jsonl": lambda folder, value: write_rows(folder / "mined.jsonl", [{"query": str(value)}]),
    "mined.jsonl.gz": lambda folder, value: write_rows(folder / "mined.jsonl.gz", [{"query": str(value)}]),
    "mined.parquet": lambda folder, value: write_rows(
        folder / "mined.parquet", [{"query": str(value), "positive": "p", "negatives": ["n"]}]
    ),
    "mined/step": lambda folder, value: write_table(
        folder / "mined", 1, Table(np.array([1]), np.array([[2]]), np.array([[value]]))
    ),
    "checkpoints": checkpoint,
    "finished.json": lambda folder, value: StageFolder(folder).finish(Path("a.ckpt"), int(value * 100)),
    "config.yaml": lambda folder, value: write_record(
        folder / "config.yaml", {"seed": value}, {}, {}, world_size=1
    ),
    "a run": begin_run,
    "items": items,
    "manifest.json": lambda folder, value: manifest.write_manifest(
        folder, [manifest.Repo(f"a/{value}", "dataset", "r", f"a/{value}", ("find",), (FILE,))]
    ),
    "bad rows": bad_row,
    "vectors": vectors,
    "a folder": whole_folder,
    "triplets.jsonl": triplets,
    "verdict.json": lambda folder, value: write_value(folder / "verdict.json", score(value)),
    "health.jsonl": lambda folder, value: replace_lines(
        folder / "health.jsonl", Score, [score(value)], lambda one: one.value
    ),
}
ADDS = ("scores.jsonl, a line", "metrics", "bad rows", "vectors")  # to a file; what is in it stays
# Modules that write files, and the writer above that does it for them.
WRITTEN_BY = {
    "cli/compare.py": "a report",
    "cli/doctor.py": "a report",
    "data/dictionary.py": "a folder",
    "data/labelled.py": "triplets.jsonl",
    "data/read/bad_rows.py": "bad rows",
    "data/stores/arrow.py": "a folder",
    "model/packaged.py": "a folder",
    "model/rotation/rotation.py": "a folder",
    "data/writing.py": "mined.jsonl",
    "deploy/stores.py": "a folder",
    "evaluation/catalogue/official/manifest.py": "manifest.json",
    "evaluation/per_item/stored.py": "items",
    "evaluation/sweeping/results.py": "a report",
    "files/checkpoint_folder.py": "finished.json",
    "files/locks.py": "a run",
    "files/measured/lines.py": "health.jsonl",
    "files/measured/points.py": "mined/step",
    "files/owned.py": "a folder",
    "files/run_folder.py": "a run",
    "files/run_record.py": "config.yaml",
    "files/scores.py": "scores.jsonl",
    "mining/tables.py": "mined/step",
    "model/backbone/backbone.py": "a folder",
    "model/backbone/lora.py": "a folder",
    "model/folder/adapter.py": "a folder",
    "model/folder/cards/card.py": "a report",
    "model/folder/config_file.py": "a folder",
    "model/folder/contract.py": "a folder",
    "model/folder/describe.py": "a folder",
    "model/folder/export.py": "a folder",
    "model/folder/onnx.py": "a folder",
    "model/folder/shipped_pooling.py": "a folder",
    "model/folder/st_folder.py": "a folder",
    "reporting/figures.py": "heat_map.png",
    "reporting/leaderboard.py": "leaderboard",
    "run/mine.py": "mined.jsonl",
    "run/pairs.py": "mined.jsonl",
    "run/report/page.py": "a report",
    "training/checkpoints.py": "checkpoints",
    "training/loggers.py": "a report",
    "training/metrics.py": "metrics",
    "vectors/records.py": "vectors",
    "vectors/store.py": "vectors",
}
WRITES = re.compile(
    r"\b(atomic_file|atomic_folder|write_text|write_bytes|write_record|append|save_file|save_pretrained)\("
    r"|\.open\(\"[wax]|\.symlink_to\(|\bcopyfile\(|\.save\(str"
)


def test_every_module_that_writes_has_its_writer_here():
    """`append(` is also a method of lists, which a dot precedes."""
    found = {
        path.relative_to(SOURCES).as_posix()
        for path in SOURCES.rglob("*.py")
        for match in WRITES.finditer(path.read_text("utf-8"))
        if not (match[0] == "append(" and path.read_text("utf-8")[match.start() - 1] == ".")
    }
    assert found - {"files/atomic.py"} == WRITTEN_BY.keys()
    assert set(WRITTEN_BY.values()) <= WRITERS.keys()


def test_scores_are_read_after_every_fault(tmp_path):
    """A line that found half a place is taken back: what follows it is a line of its own."""
    write = WRITERS["scores.jsonl, a line"]
    for number, fault in enumerate(FAULTS.values()):
        write(tmp_path, number)
        with refusing(tmp_path, *fault), suppress(OSError):
            write(tmp_path, -1)
    values = [score.value for score in read_scores(tmp_path / "scores.jsonl")]
    assert [value for value in values if value >= 0] == list(range(len(FAULTS)))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("writer", WRITERS)
def test_a_writer_that_the_disk_refuses_says_so_and_keeps_the_old(writer, fault, tmp_path, capsys):
    write, folder = WRITERS[writer], tmp_path / "disk"
    folder.mkdir()
    write(folder, 0.25)
    before, left = content(folder), None
    with refusing(folder, *FAULTS[fault]) as refused:
        try:
            with _errors_in_one_line({}):
                write(folder, 0.75)
        except SystemExit as error:
            left = error.code
    lines = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    after = content(folder)
    if left is None:  # it asks the disk for no such thing, or can do without a lock
        assert not refused or FAULTS[fault][0] == "lock"
        assert after != before
        return
    assert left == 1
    (line,) = lines
    assert str(folder) in line, line
    for name, old in before.items():
        assert after[name][: len(old)] == old
        assert writer in ADDS or after[name] == old
    new = after.keys() - before.keys()
    assert not [name for name in new if name.rpartition("/")[2].startswith(".")], "nothing half is left"
    write(folder, 0.75)  # the disk is well again
    assert content(folder) != before


@pytest.mark.parametrize("call", ["open", "write"])
@pytest.mark.parametrize("writer", WRITERS)
def test_a_refusal_reaches_every_writer(writer, call, tmp_path, capsys):
    """Else the test above would try nothing."""
    (tmp_path / "disk").mkdir()
    WRITERS[writer](tmp_path / "disk", 0.25)
    with refusing(tmp_path / "disk", call, 28) as refused, pytest.raises((OSError, InputError, SystemExit)):
        WRITERS[writer](tmp_path / "disk", 0.75)
    assert refused


@pytest.mark.parametrize("fault", ["without locks", "without such locks"])
def test_a_disk_without_locks_is_named(fault, tmp_path, capsys):
    with (
        refusing(tmp_path, *FAULTS[fault]),
        pytest.raises(SystemExit),
        _errors_in_one_line({}),
        taken(tmp_path / "x"),
    ):
        pass
    line = capsys.readouterr().err
    assert f"{tmp_path}/.x.lock" in line
    assert "This disk has no locks: choose a folder on another one" in line
