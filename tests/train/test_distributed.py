import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("two_ranks.py")
CASES = [
    ("full", "none"),
    ("dims", "none"),
    ("fixed_pairs", "prefix"),
    ("fixed_pairs", "scored"),
    ("random2d", "layer"),
    ("grid", "prefix"),
]


def run(world, folder, plan, distill):
    out, rendezvous = folder / f"out{world}", folder / f"meet{world}"
    ranks = [
        subprocess.Popen([sys.executable, SCRIPT, str(rank), str(world), rendezvous, out, plan, distill])
        for rank in range(world)
    ]
    assert [rank.wait(timeout=120) for rank in ranks] == [0] * world
    return [json.loads(Path(f"{out}.{rank}").read_text()) for rank in range(world)]


@pytest.mark.parametrize(("plan", "distill"), CASES)
def test_two_ranks_give_the_loss_and_gradient_of_one(tmp_path, plan, distill):
    """DESIGN invariant 3, in float64: same global batch, any split."""
    (single,) = run(1, tmp_path, plan, distill)
    for rank in run(2, tmp_path, plan, distill):
        assert rank["loss"] == pytest.approx(single["loss"], abs=1e-10)
        torch.testing.assert_close(
            torch.tensor(rank["gradient"], dtype=torch.float64),
            torch.tensor(single["gradient"], dtype=torch.float64),
            rtol=0,
            atol=1e-10,
        )
    assert max(map(abs, single["gradient"])) > 1e-3
