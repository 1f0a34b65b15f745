"""Espresso's compression: a prefix learns the principal components of its own layer's full vector.

Letters: R texts, L layers, D width, K coordinates of the compressed prefix.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedtrain.objective.distill.kl import divergence
from embedtrain.objective.settings import above_zero, not_negative
from embedtrain.types import Chosen, Embeddings, InputError, SubModel

SEED = 0  # of the probes of the approximate decomposition
ROUNDS = 2  # of power iteration, as torch.svd_lowrank
EXTRA = 8  # directions probed beyond those wanted


class Espresso(nn.Module):
    """Each sub-model (l, K) against P(e^l), weighted as the plan weights its loss.

    With X (R, D) the raw vectors of a layer: A = softmax of the rows of XᵀX / √D, A = U S Vᵀ,
    P(X) = X U_K S_K (R, K), without a gradient, and a the prefix X_{:K}:

        Σ_l weight_l · [ mse_weight · mean (a - P)² + kl_weight · T · KL( softmax(P / T) || softmax(a / T) ) ]

    The mean is over coordinates, the divergence over R texts. Goes with `plan.Espresso`. Vectors are raw, so
    the strength of both terms follows the norm the model emits.

    Singular vectors are known but for their sign; the largest entry of each is made positive here, or the
    target would flip from step to step and between ranks, as it may in the authors' code, which finds them
    by a random method. Source: Li et al. 2024, ESE: Espresso Sentence Embeddings, 2402.14776 (v2), and the
    authors' code (v0.6.1).
    """

    needs: frozenset[str] = frozenset()

    def __init__(
        self,
        compress_dim: int = 128,
        temperature: float = 1.0,
        mse_weight: float = 1.0,
        kl_weight: float = 1.0,
        exact_width: int = 384,
    ) -> None:
        """Set what is compressed and how strongly.

        Args:
            compress_dim: K, that of the plan.
            temperature: T, above 0.
            mse_weight: of the squared differences.
            kl_weight: of the divergence.
            exact_width: widest embedding whose components are computed exactly; wider ones by two rounds of
                power iteration from probes that are the same at every step.

        Raises:
            InputError: on a size below 1, a temperature that is not above 0, or a negative weight.
        """
        super().__init__()
        if compress_dim < 1:
            raise InputError(f"compress_dim must be at least 1, got {compress_dim}")
        self.compress_dim = compress_dim
        self.temperature = above_zero("temperature", temperature, 1)
        self.mse_weight = not_negative("mse_weight", mse_weight)
        self.kl_weight = not_negative("kl_weight", kl_weight)
        self.exact_width = exact_width

    def forward(self, texts: Embeddings, chosen: Chosen, guide: Tensor | None = None) -> Tensor:
        """The weighted sum over the layers, a scalar >= 0.

        Arguments are those of `Distill`; the guide is not looked at.

        Raises:
            InputError: if no sub-model of the step has K dims, or the model has no more than K.
        """
        width = texts.values.shape[-1]
        weights: dict[int, float] = {}
        for (layer, dim), weight in chosen:
            if dim == self.compress_dim:
                weights[layer] = weights.get(layer, 0.0) + weight
        if not weights or self.compress_dim >= width:
            raise InputError(
                f"espresso distillation compresses {width} dims to compress_dim={self.compress_dim}, and the "
                f"plan trains dims {sorted({item.sub.dim for item in chosen})}: choose plan=espresso and "
                "give both the same compress_dim, below the width"
            )
        total = texts.values.new_zeros(())
        full = [texts.raw(SubModel(layer, width)) for layer in weights]
        # all layers at once: a GPU waits for each decomposition
        targets = compressed(torch.stack(full).detach(), self.compress_dim, exact=width <= self.exact_width)
        for whole, target, weight in zip(full, targets, weights.values(), strict=True):
            total = total + weight * self._compression(whole[:, : self.compress_dim], target)
        return total

    def _compression(self, prefix: Tensor, target: Tensor) -> Tensor:
        """The loss of one layer's prefixes (R, K)."""
        loss = self.mse_weight * F.mse_loss(prefix, target)
        if self.kl_weight == 0:
            return loss
        wanted = F.log_softmax(target / self.temperature, dim=-1)
        given = F.log_softmax(prefix / self.temperature, dim=-1)
        return loss + self.kl_weight * self.temperature * divergence(wanted, given)


@torch.no_grad()
def compressed(full: Tensor, count: int, *, exact: bool = True) -> Tensor:
    """P(X) (..., R, count): texts (..., R, D) on the first components of their coordinates' affinity."""
    affinity = torch.softmax(full.mT @ full / full.shape[-1] ** 0.5, dim=-1)  # (..., D, D), not symmetric
    vectors, values = _svd(affinity) if exact else _leading(affinity, count)
    vectors, values = vectors[..., :count], values[..., None, :count]
    largest = vectors.gather(-2, vectors.abs().argmax(-2, keepdim=True))  # (..., 1, count)
    return full @ (vectors * largest.sign() * values)


def _svd(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """All left singular vectors (..., D, D) as columns and values (..., D), descending."""
    vectors, values, _ = torch.linalg.svd(matrix)
    return vectors, values


def _leading(matrix: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """At least `count` left singular vectors, values: power iteration (Halko et al. 2011, 0909.4061)."""
    width = matrix.shape[-1]
    generator = torch.Generator().manual_seed(SEED)  # on the CPU: the same probes on every device
    probes = torch.randn(width, min(count + EXTRA, width), generator=generator, dtype=torch.float64)
    basis, _ = torch.linalg.qr(matrix @ probes.to(matrix))
    for _ in range(ROUNDS):
        basis, _ = torch.linalg.qr(matrix.mT @ basis)
        basis, _ = torch.linalg.qr(matrix @ basis)
    inner, values, _ = torch.linalg.svd(basis.mT @ matrix, full_matrices=False)
    return basis @ inner, values
