"""Findings about weights: nothing moved, or adapters that change nothing when they are merged."""

from __future__ import annotations

from embedtrain.files.measured.verdict import Finding
from embedtrain.reporting.verdict.facts import Facts

STILL = 1e-6  # relative change of a block below which it did not move
MERGED = 0.01  # share of the adapted numbers that merging must change
USUAL_LR, USUAL_LORA_LR = 2e-5, 1e-4


def unchanged_weights(facts: Facts) -> Finding | None:
    """No block of the model is another than before."""
    weights = facts.weights
    if weights is None or weights.adapters is not None or any(item.moved > STILL for item in weights.blocks):
        return None
    name, said = "unchanged_weights", f"after {facts.step} steps every weight is what it was"
    if (frozen := facts.setting("backbone.freeze_blocks") or 0) >= facts.whole.layer > 0:
        return facts.finding(name, f"{said}: all {frozen} blocks are frozen", backbone__freeze_blocks=0)
    if _is_short(facts):
        text = f"{said}: the weights are {facts.setting('backbone.dtype')}, which rounds small steps away"
        return facts.finding(name, text, backbone__dtype="float32")
    lr = _lr(facts)
    cause = "the steps were too small" if lr is None else f"the learning rate was at most {lr:.2g}"
    return facts.finding(name, f"{said}: {cause}", optim__lr=_raised(lr, USUAL_LR))


def merged_to_nothing(facts: Facts) -> Finding | None:
    """Adapters whose update the merged weights do not show."""
    adapters = None if facts.weights is None else facts.weights.adapters
    if adapters is None or (adapters.moved > STILL and adapters.changed > MERGED):
        return None
    name, said = (
        "merged_to_nothing",
        f"the adapters of {adapters.layers} layers changed {adapters.changed:.1%} of the weights that they "
        f"are merged into (|BA| / |W| is {adapters.moved:.1e})",
    )
    if _is_short(facts) and adapters.moved > STILL:
        text = f"{said}: {facts.setting('backbone.dtype')} rounds the update away"
        return facts.finding(name, text, backbone__dtype="float32")
    text = f"{said}: the learning rate is too small for adapters"
    return facts.finding(name, text, optim__lr=_raised(_lr(facts), USUAL_LORA_LR))


def _raised(lr: float | None, usual: float) -> float:
    return usual if lr is None or lr < usual else 10 * lr


def _lr(facts: Facts) -> float | None:
    """The largest learning rate of a logged step; the setting where none was logged."""
    logged = [line.values["train/lr"] for line in facts.metrics if "train/lr" in line.values]
    said = facts.setting("optim.lr")
    return max(logged, default=said if isinstance(said, float | int) else None)


def _is_short(facts: Facts) -> bool:
    return str(facts.setting("backbone.dtype")) in ("bfloat16", "float16", "torch.bfloat16", "torch.float16")
