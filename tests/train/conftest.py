"""What several ranks make of the same cases: started once, all cases inside."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("two_ranks.py")
RANKS = ((0, 1), (0, 2), (1, 2))  # (rank, ranks in all)


def module_at(path):
    """The Python file at `path`, which no package holds."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def two_ranks():
    """The script itself: its cases, plans, encoder."""
    return module_at(SCRIPT)


@pytest.fixture(scope="session")
def all_results(tmp_path_factory):
    """The folder that all ranks wrote to, once for all tests."""
    folder = tmp_path_factory.mktemp("ranks")
    started = [
        subprocess.Popen(
            [sys.executable, SCRIPT, str(rank), str(world), folder / f"meet{world}", folder / "out"],
            stderr=(folder / f"errors{world}{rank}").open("w"),
        )
        for rank, world in RANKS
    ]
    for process, (rank, world) in zip(started, RANKS, strict=True):
        code = process.wait(timeout=280)
        assert code == 0, (folder / f"errors{world}{rank}").read_text()[-3000:]
    return folder


def written(folder, stem):
    """Number of ranks -> what each rank wrote."""
    return {
        count: [torch.load(folder / f"{stem}.{count}.{rank}") for rank, world in RANKS if world == count]
        for count in (1, 2)
    }


@pytest.fixture(scope="session")
def results(all_results):
    """Number of ranks -> for each rank, case -> (loss, gradient) or the message of a refusal."""
    return written(all_results, "out")


@pytest.fixture(scope="session")
def fits(all_results):
    """Number of ranks -> for each rank, fit -> (weights, queue)."""
    return written(all_results, "out.fits")


@pytest.fixture(scope="session")
def fit_metrics(all_results):
    """(number of ranks, number of the fit) -> lines of metrics.jsonl."""

    def read(world, number):
        path = all_results / f"out.fit{world}.{number}" / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]

    return read
