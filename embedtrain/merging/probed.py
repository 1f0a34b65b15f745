"""Merging that asks a probe, a loss on a few rows, which run is good for how much."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from embedtrain.merging.averages import cosine, norm
from embedtrain.merging.weights import (
    AnyNumber,
    Given,
    Merged,
    Probe,
    Weights,
    floats,
    from_base,
    listed,
    mixed,
)
from embedtrain.types import InputError

FLAT = 1e-4  # radians below which an arc is a line
LOSSES, LOSS = "probe losses", "probe loss of the result"


class GreedySoup(AnyNumber):
    """The mean of the runs that lower the probe's loss, tried from the best on.

    Wortsman et al. 2022, Model soups, 2203.05482, recipe 1, with the loss in the place of the accuracy: the
    soup is never worse on the probe than its best ingredient.
    """

    needs = frozenset({"probe"})

    def __call__(self, given: Given) -> Merged:
        """As `Method`."""
        probe = _probe(given)
        losses = [probe.loss(weights) for weights in given.weights]
        order = sorted(range(len(losses)), key=losses.__getitem__)
        taken, soup, best = order[:1], dict(given.weights[order[0]]), losses[order[0]]
        for number in order[1:]:
            tried = sorted([*taken, number])
            shares = [1 / len(tried)] * len(tried)
            weights = mixed([given.weights[one] for one in tried], shares)
            if (loss := probe.loss(weights)) <= best:
                taken, soup, best = tried, weights, loss
        names = ", ".join(given.names[one] for one in sorted(taken))
        return Merged(soup, (f"taken: {names}", listed(LOSSES, losses), listed(LOSS, [best])))


class Cocktail(AnyNumber):
    """The mean weighted by softmax(-loss / temperature) (Xiao et al. 2023, LM-Cocktail, 2311.13534).

    Args:
        temperature: the code's 5; low ones give all to the best run.

    Raises:
        InputError: for a temperature that is not above 0.
    """

    needs = frozenset({"probe"})

    def __init__(self, temperature: float = 5.0) -> None:
        if not temperature > 0:
            raise InputError(f"temperature must be above 0, got {temperature}")
        self.temperature = temperature

    def __call__(self, given: Given) -> Merged:
        """As `Method`."""
        probe = _probe(given)
        losses = [probe.loss(weights) for weights in given.weights]
        shares = torch.softmax(-torch.tensor(losses, dtype=torch.float64) / self.temperature, 0).tolist()
        return Merged(mixed(given.weights, shares), (listed(LOSSES, losses), listed("shares", shares)))


class SelfPositioning(AnyNumber):
    """The point in the plane of two task vectors where a probe's loss is least, found by SGD.

    A reconstruction of Self Positioning (2410.15035), whose paper gives neither sizes nor rates: with unit
    directions u_1, u_2 at an angle W, theta = theta_0 + length (sin((1-t)W) u_1 + sin(tW) u_2) / sin W, where
    t begins at 1/2 and the length at the mean of both norms. A further run is merged with the result, t
    beginning at 1/n. The start stays where SGD ends with a higher loss.

    Args:
        steps: of SGD for each pair, a batch of the probe a step.
        lr: learning rate of t and of the length as a share of its start.
        momentum: of SGD.

    Raises:
        InputError: for a number out of range.
    """

    needs = frozenset({"base", "probe"})

    def __init__(self, steps: int = 40, lr: float = 0.05, momentum: float = 0.9) -> None:
        if steps < 0 or not lr > 0 or not 0 <= momentum < 1:
            raise InputError(
                f"steps must be 0 or more, lr above 0, momentum in 0..1, got {steps}, {lr}, {momentum}"
            )
        self.steps, self.lr, self.momentum = steps, lr, momentum

    def __call__(self, given: Given) -> Merged:
        """As `Method`."""
        probe, base = _probe(given), given.base
        assert base is not None
        factors, lines = [1.0], list[str]()
        for number in range(1, len(given.weights)):
            plane = _Plane(base, given.weights[: number + 1], factors)
            place, said = self._placed(plane, probe, 1 / (number + 1))
            one, other = plane.parts(*place)
            factors = [*(factor * float(one) for factor in factors), float(other)]
            lines.append(f"with {given.names[number]}: {said}")
        merged = from_base(base, given.weights, factors)
        loss = listed(LOSS, [probe.loss(merged)])
        return Merged(merged, (*lines, listed("factors of the task vectors", factors), loss))

    def _placed(self, plane: _Plane, probe: Probe, t: float) -> tuple[tuple[Tensor, Tensor], str]:
        """T and the length, a share of its start, where SGD ends or began; and that in words."""
        start = torch.tensor(t, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
        place = tuple(value.clone().requires_grad_() for value in start)
        sgd = torch.optim.SGD(place, lr=self.lr, momentum=self.momentum)
        for step in range(self.steps):
            sgd.zero_grad()
            probe.batch_loss(plane.weights(place[0], place[1]), step).backward()  # type: ignore[no-untyped-call]
            sgd.step()
        with torch.no_grad():
            before, after = (probe.loss(plane.weights(*where)) for where in (start, (place[0], place[1])))
        end = (place[0].detach(), place[1].detach()) if after < before else start
        place_said = (
            f"t {float(end[0]):.4g}, length x {float(end[1]):.4g}, angle {math.degrees(plane.angle):.1f}"
        )
        return end, f"{place_said} degrees, probe loss {before:.4g} -> {after:.4g}"


class _Plane:
    """theta_0 and two directions: the runs before the last, merged, and the last."""

    def __init__(self, base: Weights, weights: Sequence[Weights], factors: Sequence[float]) -> None:
        self.base, self.names = base, floats(base)
        so_far = from_base(base, weights[:-1], factors)
        self.first, self.second = (
            {name: every[name] - base[name] for name in self.names} for every in (so_far, weights[-1])
        )
        one, other = list(self.first.values()), list(self.second.values())
        self.norms = norm(one), norm(other)
        self.angle = math.acos(cosine(one, other))

    def parts(self, t: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """The factors of both directions at a place."""
        if self.angle < FLAT or math.pi - self.angle < FLAT:
            one, other = 1 - t, t
        else:
            one, other = (torch.sin(part * self.angle) / math.sin(self.angle) for part in (1 - t, t))
        mean = sum(self.norms) / 2
        return tuple(  # type: ignore[return-value]
            length * mean * part / (size or 1.0) for part, size in zip((one, other), self.norms, strict=True)
        )

    def weights(self, t: Tensor, length: Tensor) -> dict[str, Tensor]:
        """All tensors at a place, with gradient to t and the length."""
        one, other = (part.to(torch.float32) for part in self.parts(t, length))
        moved = {
            name: self.base[name] + (one * self.first[name] + other * self.second[name]).to(self.base[name])
            for name in self.names
        }
        return {**self.base, **moved}


def _probe(given: Given) -> Probe:
    assert given.probe is not None
    return given.probe
