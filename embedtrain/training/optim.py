"""AdamW with decay groups, and the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from embedtrain.types import InputError

MOST = 1e6  # a learning rate, far beyond any in use
FUSED = ("cpu", "cuda")  # devices for which torch has the fused step
Schedule = Literal["cosine", "linear", "constant"]


class AdamW:
    """Settings of AdamW (Loshchilov and Hutter, 2019, arXiv:1711.05101) with warm-up and decay.

    Args:
        lr: peak learning rate.
        weight_decay: applied to matrices only; biases, norms and other vectors are never decayed.
        betas: first and second moment decay.
        eps: added to the root of the second moment.
        warmup: steps of linear warm-up when at least 1, otherwise the share of all steps.
        schedule: what follows warm-up: "cosine" or "linear" down to `final_lr_share`, or "constant".
        final_lr_share: the last learning rate as a share of `lr`.
        layer_decay: learning rate of a block as a share of that of the next block above it; that of the last
            block, and of what follows it, is `lr`. Below 1 lower blocks learn slower, above 1 faster.

    Raises:
        InputError: if a value is outside its range.
    """

    def __init__(
        self,
        lr: float = 2e-5,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        warmup: float = 0.1,
        schedule: Schedule = "linear",
        final_lr_share: float = 0.0,
        layer_decay: float = 1.0,
    ) -> None:
        if not lr > 0:
            raise InputError(f"lr must be above 0, got {lr}")
        if lr > MOST:
            raise InputError(f"lr must be at most {MOST:g}, got {str(lr)[:20]}")
        if warmup < 0:
            raise InputError(f"warmup must be a share below 1 or a number of steps, got {warmup}")
        if schedule not in ("cosine", "linear", "constant"):
            raise InputError(f"schedule must be cosine, linear or constant, got '{schedule}'")
        if not 0 < layer_decay <= 10:
            raise InputError(f"layer_decay must be above 0 and at most 10, got {layer_decay}")
        self.layer_decay = layer_decay
        self.lr, self.weight_decay, self.betas, self.eps = lr, weight_decay, tuple(betas), eps
        self.warmup, self.schedule, self.final_lr_share = warmup, schedule, final_lr_share

    def optimizer(self, module: nn.Module, *, fused: bool = False) -> torch.optim.AdamW:
        """The optimiser over every trainable parameter of `module`, those of the loss included.

        `fused` takes one pass over each of them where its device can, MiniLM's on a CPU in a quarter of the
        time; not for shares of parameters (`DTensor`), nor with a scaler, which Lightning then cannot clip.
        The first groups have the rate `lr`; those of a pooling and a rotation that have rates of their own,
        which never decay, come last.

        Raises:
            InputError: for a `layer_decay` of a backbone without blocks.
        """
        fused = fused and all(item.device.type in FUSED for item in module.parameters() if item.requires_grad)
        rates, groups = self._rates(module), list[dict[str, Any]]()
        by_rate: dict[float, list[tuple[str, nn.Parameter]]] = {self.lr: []}
        exits = _exits(module)
        apart = {id(item) for part in exits for item in part.parameters()}
        for name, item in module.named_parameters():
            if id(item) not in apart:
                by_rate.setdefault(rates.get(id(item), self.lr), []).append((name, item))
        for rate, named in by_rate.items():
            decays = zip(decay_groups(named), (self.weight_decay, 0.0), strict=True)
            groups += [{"params": part, "weight_decay": decay, "lr": rate} for part, decay in decays if part]
        for part in exits:
            if trained := [item for item in part.parameters() if item.requires_grad]:
                own = getattr(part, "lr", None)
                groups.append({"params": trained, "weight_decay": 0.0, "lr": self.lr if own is None else own})
        betas = (self.betas[0], self.betas[1])
        return torch.optim.AdamW(groups, lr=self.lr, betas=betas, eps=self.eps, fused=fused or None)

    def _rates(self, module: nn.Module) -> dict[int, float]:
        """Learning rates by the ids of parameters, of the backbone's; none where all have the same."""
        if self.layer_decay == 1.0:
            return {}
        backbone = getattr(_encoder(module), "backbone", None)
        blocks = list(getattr(backbone, "blocks", ()))
        if backbone is None or not blocks:
            raise InputError("layer_decay needs a backbone of blocks: use optim.layer_decay=1")
        below = {id(item): self.lr * self.layer_decay ** len(blocks) for item in backbone.parameters()}
        for above, block in enumerate(reversed(blocks)):
            below |= {id(item): self.lr * self.layer_decay**above for item in block.parameters()}
        norm = backbone.final_norm
        return below | {id(item): self.lr for item in (() if norm is None else norm.parameters())}

    def scheduler(self, optimizer: torch.optim.Optimizer, total_steps: int) -> LambdaLR:
        """The learning-rate schedule over `total_steps` optimiser steps."""
        return LambdaLR(optimizer, lambda step: self.share(step, total_steps))

    def share(self, step: int, total_steps: int) -> float:
        """Learning rate at `step` (0-based) as a share of the peak."""
        warmup = int(self.warmup) if self.warmup >= 1 else math.ceil(self.warmup * total_steps)
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if self.schedule == "constant":
            return 1.0
        done = min((step - warmup) / max(total_steps - warmup, 1), 1.0)
        decay = 1.0 - done if self.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
        return self.final_lr_share + (1.0 - self.final_lr_share) * decay


def _encoder(module: nn.Module) -> Any:  # noqa: ANN401 - whatever is trained
    """What embeds in a module; None where nothing of that name does."""
    return getattr(module, "encoder", None)


def _exits(module: nn.Module) -> list[nn.Module]:
    """What of a module's encoder learns apart: a pooling with a rate of its own, and any rotation."""
    pooling, rotation = (getattr(_encoder(module), name, None) for name in ("pooling", "rotation"))
    return [*([pooling] if hasattr(pooling, "lr") else []), *([] if rotation is None else [rotation])]


def check_precision(named: Iterable[tuple[str, nn.Parameter]], precision: str) -> None:
    """Refuse to train weights of 16 bits, which AdamW at usual rates does not move.

    Near 0.05 the next bfloat16 number is 2e-4 away: a step of 2e-5 is rounded off, in 100 steps all of them.

    Args:
        named: parameters of the encoder and the step.
        precision: Lightning's name of it.

    Raises:
        InputError: naming the setting and what would do.
    """
    if precision in ("bf16-true", "16-true"):
        raise InputError(
            f"trainer.precision={precision} keeps the weights in 16 bits, and steps of AdamW are lost in "
            "their rounding: use trainer.precision=bf16-mixed"
        )
    for name, parameter in named:
        if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
            dtype = str(parameter.dtype).removeprefix("torch.")
            raise InputError(
                f"{name} would be trained in {dtype}, and steps of AdamW are lost in its rounding: use "
                "backbone.dtype=float32, or train adapters by backbone.lora={}"
            )


def decay_groups(
    named: Iterable[tuple[str, nn.Parameter]],
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Trainable parameters as (decayed, not decayed): matrices decay, vectors and scalars do not."""
    decayed: list[nn.Parameter] = []
    undecayed: list[nn.Parameter] = []
    for _, parameter in named:
        if parameter.requires_grad:
            (decayed if parameter.ndim >= 2 else undecayed).append(parameter)
    return decayed, undecayed
