"""Products of linear layers from weights that lie as the processor's kernels read them, to encode on a CPU.

A product puts its weights in that order first, each time anew: with the 14 tokens of a query that takes
nearly half of its time, with the 2,000 of a micro-batch a tenth. Here they are put in order once, and
kept. In bfloat16 results are equal, in float32 sums are rounded elsewhere.

The two operators are those of torch's own compiler, and no page of its documentation promises them:
where they are missing, or refuse the processor, all is as without.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedtrain.model.modes import parts_of

DTYPES = (torch.float32, torch.bfloat16)
MOST_BYTES = 1 << 30  # of weights that may be kept twice
SAMPLE = 512  # numbers of a weight that are compared


class Product:
    """What a linear layer computes, from its weights in another order.

    Raises:
        AttributeError, RuntimeError: where torch cannot.
    """

    def __init__(self, layer: nn.Linear) -> None:
        self.layer, self.weight, self.bias = layer, layer.weight, layer.bias
        self.dtype = self.weight.dtype
        self._version = self.weight._version, self.weight.data_ptr()
        flat = self.weight.detach().view(-1)
        self.sample = flat[:: max(1, flat.numel() // SAMPLE) | 1]  # a view; odd: all rows and columns
        self._ordered = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach())

    def holds(self) -> bool:
        """Whether the layer still has the weights that were put in order."""
        weight = self.layer.weight
        same = weight is self.weight and self.layer.bias is self.bias
        return same and (weight._version, weight.data_ptr()) == self._version

    def __call__(self, given: Tensor) -> Tensor:
        """(..., O) of (..., I)."""
        if given.dtype != self.dtype or torch.is_grad_enabled():  # another thread may train
            return F.linear(given, self.weight, self.bias)
        product = torch.ops.mkldnn._linear_pointwise
        return cast(Tensor, product(given, self._ordered, self.bias, "none", [], ""))


class Reordered:
    """The products of a model, kept for as long as its weights are the same."""

    def __init__(self) -> None:
        self._products: list[Product] | None = None
        self._samples = torch.empty(0)  # of all weights

    def __reduce__(self) -> tuple[type[Reordered], tuple[()]]:
        """A copy begins empty: such tensors can neither be copied nor written."""
        return type(self), ()

    @contextmanager
    def used(self, model: nn.Module, *, keep: bool) -> Iterator[None]:
        """While open, linear layers of `model` compute so, without gradient; then all is freed, or kept."""
        if torch.is_autocast_enabled("cpu"):  # it casts weights
            yield
            return
        if self._products is None or not self._hold():
            self._products = _products(model)
            self._samples = self._sampled()
        for product in self._products:
            vars(product.layer)["forward"] = product
        try:
            yield
        finally:
            for product in self._products or ():
                vars(product.layer).pop("forward", None)
            if not keep:
                self._products = None

    def _hold(self) -> bool:
        """Whether all layers have the same weights; samples show what `.data` hides from a version."""
        products = self._products or ()
        return all(item.holds() for item in products) and torch.equal(self._sampled(), self._samples)

    def _sampled(self) -> Tensor:
        samples = [product.sample.float() for product in self._products or ()]
        return torch.cat(samples) if samples else torch.empty(0)


@torch.no_grad()
def _products(model: nn.Module) -> list[Product]:
    """Of every plain linear layer that no ranks share; none if too large, compiled, or torch cannot."""
    parts = parts_of(model)
    layers = [part for part in parts if type(part) is nn.Linear and _plain(part)]
    kept = sum(layer.weight.numel() * layer.weight.element_size() for layer in layers)
    if kept > MOST_BYTES or any(part._compiled_call_impl is not None for part in parts):
        return []
    try:
        products = [Product(layer) for layer in layers]
        for product in products[:1]:
            product(torch.zeros(1, product.layer.in_features, dtype=product.dtype))
    except (AttributeError, RuntimeError):
        return []
    return products


def _plain(layer: nn.Linear) -> bool:
    weight = layer.weight
    known = type(weight) is nn.Parameter and weight.device.type == "cpu" and weight.dtype in DTYPES
    return known and weight.numel() > 0 and weight.is_contiguous() and "forward" not in vars(layer)
