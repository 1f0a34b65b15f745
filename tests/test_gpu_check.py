"""Each check of benchmarks/gpu_check.py holds on a CPU at tiny size, so none fails for a silly reason."""

import gpu_check
import pytest
from gpu.setting import Measured, make_setting

FAST = ("losses", "gradcache", "packing", "latents", "encode")


@pytest.mark.parametrize(
    "name",
    [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in gpu_check.CHECKS],
)
def test_a_check_holds_on_a_cpu(name, tiny_bert, tmp_path):
    found = gpu_check.checked(name, make_setting("cpu", str(tiny_bert), tmp_path, tiny=True))
    assert found["error"] is None
    assert [item for item in found["found"] if not item["good"]] == []
    assert found["found"], "something was measured"


def test_a_number_outside_its_bounds_is_seen(monkeypatch, tmp_path):
    monkeypatch.setitem(gpu_check.CHECKS, "low", lambda _: [Measured("x", 1.0, least=2.0)])
    monkeypatch.setitem(gpu_check.CHECKS, "none", lambda _: [Measured("x", float("nan"))])
    monkeypatch.setitem(gpu_check.CHECKS, "error", lambda _: [1 / 0])
    for name in ("low", "none", "error"):
        assert not gpu_check.checked(name, None)["good"]
