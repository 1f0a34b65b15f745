"""Flash attention where it runs, on a GPU and in 16 bits; elsewhere its models take another."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from transformers import PreTrainedModel

DEVICES = ("cuda",)  # that the kernels are for


class Flash:
    """What a model that asks for flash attention runs, wherever it is; any other model is left as it is.

    Args:
        model: its config says which implementation is asked for.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        asked = str(model.config._attn_implementation)
        self._asked = asked if asked.startswith("flash") else None
        self._elsewhere = "sdpa" if getattr(model, "_supports_sdpa", True) else "eager"
        self._due: list[Callable[[], None]] = []

    @property
    def runs(self) -> bool:
        """Whether the next forward takes the kernels."""
        return self._asked is not None and self._model.device.type in DEVICES

    def probe(self, check: Callable[[], None]) -> None:
        """Run a check now, and again where the kernels run if they do not yet."""
        self.settle()
        check()
        if self._asked is not None and not self.runs:
            self._due.append(check)

    def settle(self) -> None:
        """Choose the implementation for where the model is; there the checks that are due pass first.

        Raises:
            InputError: as the checks do, and again at the next call.
        """
        if self._asked is None:
            return
        self._model.config._attn_implementation = self._asked if self.runs else self._elsewhere
        if not self.runs or not self._due:
            return
        due, self._due = self._due, []  # they call the model themselves
        try:
            for check in due:
                check()
        except BaseException:
            self._due = due
            raise

    def precision(self) -> AbstractContextManager[object]:
        """Autocast for float32 weights outside of it: the kernels take 16 bits alone."""
        kind = self._model.device.type
        if not self.runs or self._model.dtype != torch.float32 or torch.is_autocast_enabled(kind):
            return nullcontext()
        return torch.autocast(kind, dtype=torch.bfloat16)
