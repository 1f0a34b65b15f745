"""From an empty folder over a prefetch to an offline evaluation; the hub is a folder of this machine."""

import json
import shutil

import pytest
from datasets import Dataset
from small_runs import flip
from tasks import swept

from embedtrain.evaluation.catalogue.official.manifest import read_manifest
from embedtrain.evaluation.catalogue.offline import settle_offline
from embedtrain.evaluation.catalogue.prefetch import prefetch, wanted_data
from embedtrain.evaluation.catalogue.sources import source_of
from embedtrain.evaluation.catalogue.tasks import find_tasks, load
from embedtrain.files.scores import main_scores
from embedtrain.types import Cell, InputError

STS, SCIFACT = "mteb/stsbenchmark-sts", "mteb/scifact"
CONFIGS = """---
configs:
- {config_name: default, data_files: [{split: test, path: qrels/test.parquet}]}
- {config_name: corpus, data_files: [{split: corpus, path: corpus.parquet}]}
- {config_name: queries, data_files: [{split: queries, path: queries.parquet}]}
---
"""


def parquet(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(rows).to_parquet(path)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Two repositories in the layout of the real ones, and a client that copies them; it notes its calls."""
    hub = tmp_path / "hub"
    rows = [{"sentence1": f"cat {n}", "sentence2": f"dog {n % 3}", "score": n % 6} for n in range(12)]
    parquet(hub / STS / "data/test-00000-of-00001.parquet", rows)
    parquet(hub / STS / "data/validation-00000-of-00001.parquet", rows[:5])
    (hub / SCIFACT).mkdir(parents=True)
    (hub / SCIFACT / "README.md").write_text(CONFIGS)
    docs = [{"_id": str(n), "title": f"t{n}", "text": f"word{n} story"} for n in range(9)]
    parquet(hub / SCIFACT / "corpus.parquet", docs)
    parquet(hub / SCIFACT / "queries.parquet", [{"_id": f"q{n}", "text": f"word{n}"} for n in range(4)])
    judged = [{"query-id": f"q{n}", "corpus-id": str(n), "score": 1} for n in range(3)]
    parquet(hub / SCIFACT / "qrels/test.parquet", judged)
    calls = []

    def snapshot_download(
        repo, *, repo_type, revision, local_dir=None, allow_patterns=None, local_files_only=False
    ):
        from huggingface_hub.errors import LocalEntryNotFoundError

        if local_files_only:
            raise LocalEntryNotFoundError("not cached")
        calls.append((repo, revision))
        if not (hub / repo).is_dir():
            raise ConnectionError(f"no route to {repo}\nand a second line")
        shutil.copytree(hub / repo, local_dir, dirs_exist_ok=True)
        (local_dir / ".cache/huggingface").mkdir(parents=True, exist_ok=True)
        (local_dir / ".cache/huggingface/notes").write_text("of the client")
        return str(local_dir)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return hub, calls


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """`datasets` prepares tables in a cache of this test's own."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def fetch(root, *names, told=None, **settings):
    root.mkdir(exist_ok=True)
    say = [].append if told is None else told.append
    return prefetch(wanted_data(find_tasks(names, root)), root, say, **settings)


def score(tasks, encoder, folder):
    return {score.task: score.value for score in main_scores(swept(encoder, tasks, [Cell(1, 16)], folder))}


def test_official_tasks_run_offline_from_what_a_prefetch_wrote(hub, tmp_path, make_encoder):
    root, told = tmp_path / "mirror", []
    fetched = fetch(root, "STSBenchmark", "SciFact", told=told)
    assert not fetched.failures
    assert any(line.startswith(f"[1/2] {STS}@b0fddb56ed78: 2 files,") for line in told)
    tasks = settle_offline(find_tasks(["STSBenchmark", "SciFact"], root), root, verify=True)
    assert [source_of(task).how for task in tasks] == ["folder", "folder"]
    assert tasks[0].metadata.revision == "b0fddb56ed78048fa8b90373c8a3cfc37b684831"
    scores = score(tasks, make_encoder(), tmp_path / "run")
    assert scores["SciFact"] == pytest.approx(1.0)
    load(tasks[0])
    assert tasks[0].dataset["test"]["sentence1"][:] == [f"cat {n}" for n in range(12)]
    assert len(tasks[1].metadata.eval_splits) == 1


def test_rows_and_folder_of_the_same_content_score_alike(hub, tmp_path, write, make_encoder):
    root, rows = tmp_path / "mirror", tmp_path / "rows"
    fetch(root, "STSBenchmark")
    pairs = [{"sentence1": f"cat {n}", "sentence2": f"dog {n % 3}", "score": n % 6} for n in range(12)]
    write(rows / "sts/stsbenchmark/test.jsonl", pairs)
    folder = score(find_tasks(["STSBenchmark"], root), make_encoder(), tmp_path / "a")
    assert folder == score(find_tasks(["STSBenchmark"], rows), make_encoder(), tmp_path / "b")
    (root / "sts").mkdir()
    shutil.copytree(rows / "sts/stsbenchmark", root / "sts/stsbenchmark")
    (task,) = find_tasks(["STSBenchmark"], root)
    assert source_of(task).how == "folder"  # the official data go first


def test_the_manifest_says_size_and_hash_of_every_file(hub, tmp_path):
    root = tmp_path / "mirror"
    fetch(root, "STSBenchmark", "SciFact")
    said = json.loads((root / "manifest.json").read_text())
    assert [entry["repo"] for entry in said["repos"]] == [SCIFACT, STS]
    scifact = said["repos"][0]
    assert scifact["tasks"] == ["SciFact"]
    assert [file["path"] for file in scifact["files"]] == [
        "README.md", "corpus.parquet", "qrels/test.parquet", "queries.parquet",
    ]  # fmt: skip
    readme = scifact["files"][0]
    assert readme["size"] == len(CONFIGS)
    import hashlib

    assert readme["sha256"] == hashlib.sha256(CONFIGS.encode()).hexdigest()
    assert scifact["size"] == sum(file["size"] for file in scifact["files"])


def test_a_second_prefetch_fetches_only_what_is_missing_or_damaged(hub, tmp_path):
    _, calls = hub
    root = tmp_path / "mirror"
    fetch(root, "STSBenchmark")
    fetch(root, "STSBenchmark", "SciFact")
    assert [repo for repo, _ in calls] == [STS, SCIFACT]
    (repo,) = (repo for repo in read_manifest(root).values() if repo.repo == STS)
    damaged = root / repo.folder / repo.files[0].path
    content = flip(damaged, -1)
    fetch(root, "STSBenchmark")
    assert len(calls) == 2
    fetch(root, "STSBenchmark", verify=True)
    assert len(calls) == 3
    assert damaged.read_bytes() == content


def test_one_repository_that_fails_is_reported_and_the_rest_go_on(hub, tmp_path):
    root = tmp_path / "mirror"
    told = []
    fetched = fetch(root, "STS12", "STSBenchmark", told=told)
    assert fetched.failures == {"mteb/sts12-sts": "ConnectionError: no route to mteb/sts12-sts"}
    assert [repo.repo for repo in fetched.repos] == [STS]
    assert any("failed, ConnectionError" in line for line in told)
    assert not list(root.glob("mteb/sts12*"))


def test_a_stopped_prefetch_leaves_no_folder_that_looks_whole(hub, tmp_path, monkeypatch):
    root = tmp_path / "mirror"

    def stopped(repo, *, local_dir, **_):
        local_dir.mkdir(parents=True)
        (local_dir / "half.parquet").write_bytes(b"1")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.snapshot_download", stopped)
        with pytest.raises(KeyboardInterrupt):
            fetch(root, "STSBenchmark")
    (task,) = find_tasks(["STSBenchmark"], root)
    assert source_of(task).how == "hub"
    fetch(root, "STSBenchmark")
    (task,) = find_tasks(["STSBenchmark"], root)
    assert source_of(task).how == "folder"
    assert not list(root.rglob("*.partial"))


def test_a_full_disk_stops_at_once_and_says_how_to_go_on(hub, tmp_path, full_disk):
    full_disk("huggingface_hub.snapshot_download")
    with pytest.raises(InputError, match=r"the disk is full while fetching mteb/sts12-sts; make room"):
        fetch(tmp_path / "mirror", "STS12", "STSBenchmark")


def test_offline_names_what_is_missing_and_the_command_that_fetches_it(hub, tmp_path):
    root = tmp_path / "mirror"
    fetch(root, "STSBenchmark")
    tasks = find_tasks(["STSBenchmark", "STS12", "STS13", "smoke"], root)
    with pytest.raises(InputError) as said:
        settle_offline(tasks, root)
    first, second = str(said.value).splitlines()
    assert first.startswith("offline: 2 of 31 tasks have no data here: STS12 (mteb/sts12-sts@")
    assert f"embedtrain-evaluate prefetch=true 'tasks=[STS12,STS13]' data_root={root}" in second


def test_offline_finds_files_that_are_not_as_they_were_fetched(hub, tmp_path):
    root = tmp_path / "mirror"
    fetch(root, "STSBenchmark")
    tasks = find_tasks(["STSBenchmark"], root)
    file = next(root.rglob("test-*.parquet"))
    content = flip(file, -1)
    settle_offline(tasks, root)
    with pytest.raises(InputError, match=r"STSBenchmark: in .*, data/test-.* has another content than"):
        settle_offline(tasks, root, verify=True)
    file.write_bytes(content[:-1])
    with pytest.raises(InputError, match=r"has \d+ bytes, the manifest says \d+\n.*'tasks=\[STSBenchmark\]'"):
        settle_offline(tasks, root)
    file.unlink()
    with pytest.raises(InputError, match=r"test-00000-of-00001\.parquet is missing"):
        settle_offline(tasks, root)


def test_offline_reads_the_hubs_cache_at_the_pinned_revision(hub, tmp_path, monkeypatch):
    folder, _ = hub

    def cached(repo, *, repo_type, revision, local_files_only):
        assert (repo_type, local_files_only) == ("dataset", True)
        assert (repo, revision) == (STS, "b0fddb56ed78048fa8b90373c8a3cfc37b684831")
        return str(folder / repo)

    monkeypatch.setattr("huggingface_hub.snapshot_download", cached)
    (task,) = settle_offline(find_tasks(["STSBenchmark"]), None, verify=True)
    assert source_of(task).folder == folder / STS


def test_offline_takes_prepared_tables_only_of_the_pinned_revision(hub, tmp_path):
    tables = tmp_path / "cache/mteb___stsbenchmark-sts/default/0.0.0"
    (tables / "b0fddb56ed78048fa8b90373c8a3cfc37b684831").mkdir(parents=True)
    (task,) = settle_offline(find_tasks(["STSBenchmark"]), None)
    assert source_of(task).how == "hub"
    (tables / "another").mkdir()
    with pytest.raises(InputError, match="1 of 1 tasks have no data here"):
        settle_offline(find_tasks(["STSBenchmark"]), None)


def test_data_that_are_no_longer_to_be_had_are_named_with_the_cure(hub, tmp_path):
    root = tmp_path / "mirror"
    fetch(root, "STSBenchmark")
    for file in root.rglob("*.parquet"):
        file.write_bytes(b"not parquet")
    (task,) = find_tasks(["STSBenchmark"], root)
    with pytest.raises(
        InputError, match=r"task STSBenchmark: its data .*stsbenchmark-sts@b0f.* cannot be loaded"
    ):
        load(task)


def test_a_split_that_the_data_lack_is_named(hub, tmp_path):
    root = tmp_path / "mirror"
    fetch(root, "STSBenchmark")
    (task,) = find_tasks(["STSBenchmark:dev2"], root)
    with pytest.raises(InputError, match="task STSBenchmark has no split dev2; it has test, validation"):
        load(task)


def test_a_damaged_manifest_is_said(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(
        InputError, match=r"manifest\.json cannot be read .* Remove it and run the prefetch again"
    ):
        read_manifest(tmp_path)
