"""What of our code travels with a folder whose pooling sentence-transformers does not have."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

import torch
from torch import nn

from embedtrain.model.folder import shipped_pooling
from embedtrain.model.folder.modules import STATE_POOLING
from embedtrain.model.folder.shipped_pooling import PREFIX, StateNorm
from embedtrain.model.pooling import pooling_sources
from embedtrain.types import InputError


def shipped_sources() -> dict[str, str]:
    """The files of `StatePooling` and the poolings, as one family that imports nothing of embedtrain.

    The first imports all others: that registers their poolings, and transformers 4 copies only files that it
    sees imported there.
    """
    package = "from embedtrain.model.pooling."
    texts = pooling_sources()
    every = "".join(f"from .{name.removesuffix('.py')} import __name__ as _\n" for name in sorted(texts))
    own = Path(shipped_pooling.__file__).read_text("utf-8")
    own = own.replace(package, f"{every}{package}", 1).replace(package, "from .")
    family = {f"{PREFIX}{name}": text for name, text in texts.items()}
    family[f"{STATE_POOLING.partition('.')[0]}.py"] = own
    return {name: re.sub(r"(?m)^from \.", f"from .{PREFIX}", text) for name, text in family.items()}


def state_norm(norm: nn.Module, hidden_size: int) -> StateNorm:
    """A copy of a backbone's final norm that needs no code of the backbone.

    Raises:
        InputError: for a norm that is neither a LayerNorm nor an RMSNorm.
    """
    weight = cast(torch.Tensor, norm.weight).detach()
    bias = getattr(norm, "bias", None)
    eps = float(getattr(norm, "variance_epsilon", getattr(norm, "eps", 1e-6)))
    probe = torch.linspace(-3, 5, 2 * hidden_size).reshape(1, 2, hidden_size).to(weight)  # (1, 2, H)
    with torch.no_grad():
        expected = norm(probe).float()
        for kind, scale in (("layer", weight), ("rms", weight), ("rms", 1 + weight.float())):
            found = StateNorm(kind, hidden_size, eps, bias=bias is not None)
            found.weight = nn.Parameter(scale.clone())
            if bias is not None:
                found.bias = nn.Parameter(bias.detach().clone())
            # Gemma keeps its scale less one; which of the three it is, the values tell.
            if torch.allclose(
                found(probe).float(), expected, rtol=1e-2 if weight.dtype.itemsize < 4 else 1e-5
            ):
                return found.to(weight.device)
    raise InputError(f"cannot ship the final norm {type(norm).__name__} with a pooling over layers")
