"""What several ranks make of the same cases: started once, all cases inside."""

import os
import pickle
from pathlib import Path

import pytest
from processes import module_at, wait_until
from small_runs import lines_of

SCRIPT = Path(__file__).with_name("two_ranks.py")


@pytest.fixture(scope="session")
def two_ranks():
    """The script itself: its cases, plans, encoder."""
    return module_at(SCRIPT)


@pytest.fixture(scope="session", params=["pairs", pytest.param("product", marks=pytest.mark.slow)])
def all_results(request, on_ranks, tmp_path_factory):
    """(number of ranks -> what each rank returned, the folder); the first worker of pytest-xdist makes it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / request.param
    done, found = folder / "results", "the worker that started the ranks has their output"
    try:
        folder.mkdir()
    except FileExistsError:
        wait_until(done.exists)
    else:
        try:
            given = (SCRIPT, "main")
            found = {n: on_ranks(*given, n, request.param, folder, world=n) for n in (1, 2)}
        finally:
            (folder / "writing").write_bytes(pickle.dumps(found))
            (folder / "writing").rename(done)
    found = pickle.loads(done.read_bytes())
    assert not isinstance(found, str), found
    return found, folder


@pytest.fixture(scope="session")
def results(all_results):
    """Number of ranks -> for each rank, case -> (loss, gradient) or the message of a refusal."""
    return {world: [found for found, _, _ in ranks] for world, ranks in all_results[0].items()}


@pytest.fixture(scope="session")
def cases(results, two_ranks):
    """What `results` has, in order."""
    return [two_ranks.Case(*case) for case in results[1][0]]


@pytest.fixture(scope="session")
def reductions(all_results):
    """For each of two ranks, (chunk, accumulation) -> how often gradients travel in a step."""
    return [sent for _, sent, _ in all_results[0][2]]


@pytest.fixture(scope="session")
def fits(all_results):
    """Number of ranks -> for each rank, fit -> (weights, queue)."""
    return {world: [fits for _, _, fits in ranks] for world, ranks in all_results[0].items()}


@pytest.fixture(scope="session")
def fit_metrics(all_results):
    """(number of ranks, number of the fit) -> lines of metrics.jsonl."""
    return lambda world, number: lines_of(all_results[1] / f"{world}.{number}")
