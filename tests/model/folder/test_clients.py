"""Clients in fresh environments without embedtrain, as docs/clients.md says. Their code is in clients.py."""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import venv
from pathlib import Path

import numpy as np
import pytest

from embedtrain.model.folder.export import load_encoder
from embedtrain.types import SubModel

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
_SPEC = importlib.util.spec_from_file_location("clients", HERE / "clients.py")
clients = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(clients)

TEXTS = (
    "a cat sleeps",
    "",
    "naïve café, 北京, 12.5 %",
    "The bank of the river was flooded after three weeks of heavy rain.",
    "word " * 300,
)
PROMPTS = {"query": "query: ", "document": "passage: "}
FOLDERS = {"whole": None, "cut": SubModel(3, 96), "prompts": SubModel(2, 64)}
LINE = re.compile(r"^\| (?P<client>[^|]+) \| (?P<version>[^|]+) \|.* \| (?P<again>yes|no) \|$", re.MULTILINE)


def row_of(name):
    """The name of a client in docs/clients.md, and the version that is run again."""
    client = (clients.EMBED | clients.SEARCH)[name]
    package, _, version = (client.packages or clients.TORCH[1:])[0].partition("==")
    return package.partition("[")[0], version


def test_every_row_of_the_page_that_is_run_again_is_of_that_version():
    page = (ROOT / "docs" / "clients.md").read_text("utf-8")
    rows = [line.groupdict() for line in LINE.finditer(page)]
    assert len(rows) == sum(line.startswith("| ") for line in page.splitlines()) - 2  # of two tables, a head
    again = {(row["client"], row["version"].split(",")[0]) for row in rows if row["again"] == "yes"}
    node, version = clients.NODE.rsplit("@", 1)
    assert again == {row_of(name) for name in clients.EMBED | clients.SEARCH} | {(node, version)}


@pytest.fixture(scope="module")
def jobs(minilm_path, tmp_path_factory):
    """What clients are to embed, and what embedtrain gives for it."""
    pytest.importorskip("onnxscript")
    from embedtrain.model.folder.onnx import export_onnx

    place, asked, expected = tmp_path_factory.mktemp("folders"), [], []
    for name, sub in FOLDERS.items():
        prompts = PROMPTS if name == "prompts" else {}
        encoder = load_encoder(minilm_path, prompts=prompts)
        sub = sub or SubModel(encoder.num_layers, encoder.width)
        export_onnx(encoder, place / name, sub)
        for role in ("query", "document"):
            job = {"folder": str(place / name), "dim": sub.dim, "texts": TEXTS, "role": role}
            asked.append(job | {"prompt": prompts.get(role, ""), "dtype": "fp32"})
            expected.append(encoder.encode(TEXTS, (sub.layer,), role).at(sub).numpy())
    return asked, expected


def environment(folder, packages, beside=None):
    """The Python of a fresh environment, which also sees the packages of the one `beside` it."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    if beside is not None:
        (found,) = Path(beside).parents[1].glob("lib/python*/site-packages")
        (place,) = folder.glob("lib/python*/site-packages")
        (place / "beside.pth").write_text(f"{found}\n")
    if packages and run([python, "-m", "pip", "install", "-q", *packages], folder / "log") is None:
        said = (folder / "log").read_text("utf-8").strip()
        pytest.skip(f"cannot be installed here: {', '.join(packages)}. {said[-300:]}")
    return python


def run(words, log, **settings):
    """What a command prints, None if it fails; whatever it has started ends with it."""
    with log.open("w") as errors, log.with_suffix(".out").open("w+") as said:
        running = subprocess.Popen(words, stdout=said, stderr=errors, start_new_session=True, **settings)
        failed = running.wait(timeout=1500)
        try:
            os.killpg(running.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        said.seek(0)
        return None if failed else said.read()


def answers(words, jobs, place, **settings):
    """What a client gives for each job."""
    (place / "jobs.json").write_text(json.dumps(jobs))
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    said = run([*words, place / "jobs.json"], place / "client.log", env=offline, **settings)
    assert said is not None, (place / "client.log").read_text("utf-8")[-2000:]
    return json.loads(said.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def torch_python(tmp_path_factory):
    """An environment with torch and sentence-transformers, for all clients that need them."""
    return environment(tmp_path_factory.mktemp("torch") / "venv", clients.TORCH)


def python_of(request, client, folder):
    """The Python that a client runs in."""
    beside = request.getfixturevalue("torch_python") if client.torch else None
    return environment(folder, client.packages, beside)


@pytest.mark.slow
@pytest.mark.parametrize("name", clients.EMBED)
def test_a_client_gives_the_vectors(request, jobs, tmp_path, name):
    asked, expected = jobs
    python = python_of(request, clients.EMBED[name], tmp_path / "venv")
    found = answers([python, "-I", HERE / "clients.py", name], asked, tmp_path)
    for vectors, wanted, job in zip(found, expected, asked, strict=True):
        np.testing.assert_allclose(vectors, wanted, rtol=0, atol=1e-5, err_msg=str(job))


@pytest.mark.slow
def test_node_gives_the_vectors(jobs, tmp_path):
    if shutil.which("npm") is None:
        pytest.skip("needs node and npm: apt-get install nodejs npm")
    asked, expected = jobs
    install = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", clients.NODE]
    if run(install, tmp_path / "npm.log", cwd=tmp_path) is None:
        pytest.skip(f"cannot be installed here: {clients.NODE}")
    script = shutil.copy(HERE / "clients.mjs", tmp_path)
    # It cuts a text that is too long without its end token.
    found = answers(["node", script], [job | {"texts": TEXTS[:-1]} for job in asked], tmp_path)
    for vectors, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(vectors, wanted[:-1], rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", clients.SEARCH)
def test_a_store_finds_what_exact_search_finds(request, minilm_path, tmp_path, name):
    draw = np.random.default_rng(0)
    words = "cat dog rain river bank money guitar house bird tree ball fish red blue old new".split()
    texts = list(dict.fromkeys(" ".join(draw.choice(words, draw.integers(2, 9))) for _ in range(320)))
    sub = SubModel(3, 96)
    vectors = load_encoder(minilm_path).encode(texts, (sub.layer,)).at(sub).numpy()
    documents, queries = vectors[20:], vectors[:20]
    job = {"documents": documents.tolist(), "queries": queries.tolist(), "k": 10}
    python = python_of(request, clients.SEARCH[name], tmp_path / "venv")
    (found,) = answers([python, "-I", HERE / "clients.py", name], [job], tmp_path)
    cosines = queries @ documents.T  # (20, N)
    places = np.array(found)[..., 0].astype(int)
    np.testing.assert_allclose(np.array(found)[..., 1], np.take_along_axis(cosines, places, 1), atol=1e-6)
    best = -np.sort(-cosines, axis=1)[:, :10]
    np.testing.assert_allclose(np.take_along_axis(cosines, places, 1), best, atol=1e-6)
