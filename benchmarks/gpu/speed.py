"""How much memory a step takes, and how fast it is."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch

from embedtrain.doctor.built_run import BuiltRun, first_batches
from embedtrain.doctor.memory import estimated
from embedtrain.model.backbone.block_states import compile_blocks
from embedtrain.model.encoder import Encoder
from embedtrain.model.folder.export import load_encoder
from gpu.runs import begun
from gpu.setting import Measured, Setting

PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}  # dense bfloat16
RECORDED = Path(__file__).parents[1] / "results" / "gpu_check.json"
SIX = "plan.pairs=[[6,64],[6,256],[6,768],[12,64],[12,256],[12,768]]"


def memory(setting: Setting) -> list[Measured]:
    """The peak of a step beside the doctor's estimate; BERT-base, six sub-models, whole and by GradCache."""
    found = []
    cases = {  # some 16,000 tokens at once; 4,096 pairs by GradCache in chunks of as many
        "whole": (setting.size(8, 640), "backbone.max_tokens=16384"),
        "gradcache": (setting.size(8, 4_096), "gradcache=chunks"),
    }
    for name, (size, chosen) in cases.items():
        words = setting.words(f"memory_{name}", chosen, "trainer.max_steps=2")
        changed = [f"backbone.path={setting.base()}", f"data.batch_size={size}"]
        changed += [] if setting.tiny else [SIX]
        keys = {word.partition("=")[0] for word in changed}
        words = [*(word for word in words if word.partition("=")[0] not in keys), *changed]
        with begun(words) as run:
            built = BuiltRun.of(run.stage)
            need = estimated(built, first_batches(built, 64)).total / 2**30
            if setting.on_gpu:
                torch.cuda.reset_peak_memory_stats()
            run.fit()
        found.append(Measured(f"{name}, {size} pairs: estimated GiB", need, least=0.0))
        if setting.on_gpu:
            peak = torch.cuda.max_memory_allocated() / 2**30
            most = 16.0 if name == "gradcache" else None
            found.append(Measured(f"{name}, {size} pairs: peak GiB", peak, most=most))
            found.append(Measured(f"{name}: estimate / peak", need / peak, least=0.8, most=1.3))
    return found


def speed(setting: Setting) -> list[Measured]:
    """Tokens a second of forward and backward, plain and compiled, and their share of the peak."""
    found = []
    peak = next((value for name, value in PEAK.items() if name in setting.said), None)
    before = recorded(setting)
    for name, path in {"model": setting.model, "base": setting.base()}.items():
        for length in (8,) if setting.tiny else (32, 128, 512):
            encoder = load_encoder(path, attn_implementation="sdpa", max_length=length)
            encoder = encoder.to(setting.device).train()
            inside = sum(item.numel() for block in encoder.backbone.blocks for item in block.parameters())
            # two operations for each product, three times: forward, and both gradients
            work = 6 * inside + 12 * encoder.num_layers * encoder.backbone.hidden_size * length
            for kind in ("plain", "compiled"):
                if kind == "compiled":
                    compile_blocks(encoder.backbone.blocks, "eager" if setting.tiny else "inductor")
                named = f"{name}, {length} tokens, {kind}"
                rate = _rate(encoder, length, setting)
                least = 0.8 * before[named] if named in before else None
                found.append(Measured(named, rate, least=least))
                if peak is not None:
                    bound = 0.45 if (name, length, kind) == ("base", 128, "compiled") else None
                    found.append(Measured(f"{named}: share of the peak", rate * work / peak, least=bound))
    return found


def recorded(setting: Setting) -> dict[str, float]:
    """Tokens a second that an earlier call found on this device and wrote down."""
    if not RECORDED.is_file():
        return {}
    report = json.loads(RECORDED.read_text("utf-8"))
    found = report["checks"].get("speed", {}).get("found", []) if report["device"] == setting.said else []
    return {item["name"]: item["value"] for item in found if ":" not in item["name"]}


def _rate(encoder: Encoder, length: int, setting: Setting) -> float:
    """Tokens a second of as many texts as 65,536 tokens hold."""
    read = [encoder.process.read(["cat " * length], "document")[0]] * setting.size(4, 65_536 // length)
    tokens = encoder.process.pad(read).to_device(setting.device)
    encoder.max_tokens = tokens.values.numel()

    def step() -> None:
        with torch.autocast(setting.device.type, dtype=torch.bfloat16, cache_enabled=False):
            values = encoder(tokens, (encoder.num_layers,)).values
        values.square().mean().backward()

    return tokens.values.numel() / _seconds(step, setting)


def _seconds(step: Callable[[], object], setting: Setting) -> float:
    """The median of some steps, after some that warm up."""
    taken = []
    for _ in range(setting.size(2, 13)):
        begun_at = time.perf_counter()
        step()
        if setting.on_gpu:
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - begun_at)
    taken = sorted(taken[len(taken) // 4 :])
    return taken[len(taken) // 2]
