"""What several ranks make of the same cases: started once, all cases inside."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from rank_group import module_at

SCRIPT = Path(__file__).with_name("two_ranks.py")
LONGEST = 280  # seconds on a busy machine; alone it takes less than 60
RANKS = ((0, 1), (0, 2), (1, 2))  # (rank, ranks in all)


@pytest.fixture(scope="session")
def two_ranks():
    """The script itself: its cases, plans, encoder."""
    return module_at(SCRIPT)


@pytest.fixture(scope="session")
def all_results(tmp_path_factory):
    """The folder that all ranks wrote to, once for all tests, also where pytest-xdist spreads them."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return start_ranks(tmp_path_factory.mktemp("ranks"))
    folder = tmp_path_factory.getbasetemp().parent / "ranks"  # all workers of one run share it
    try:
        folder.mkdir()
    except FileExistsError:
        end = time.monotonic() + LONGEST
        while not (folder / "done").exists():
            assert time.monotonic() < end, "the ranks that another worker started did not finish"
            time.sleep(0.2)
        return folder
    start_ranks(folder)
    (folder / "done").touch()
    return folder


def start_ranks(folder):
    """Run the script on one rank and on two, all at once."""
    started = [
        subprocess.Popen(
            [sys.executable, SCRIPT, str(rank), str(world), folder / f"meet{world}", folder / "out"],
            stderr=(folder / f"errors{world}{rank}").open("w"),
        )
        for rank, world in RANKS
    ]
    for process, (rank, world) in zip(started, RANKS, strict=True):
        code = process.wait(timeout=LONGEST)
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
