"""What the commands print: our own messages on stderr, and of the libraries only warnings and errors."""

from __future__ import annotations

import logging
import sys
import warnings

from embedtrain.escaping import terminal

LIBRARIES = ("pytorch_lightning", "sentence_transformers", "transformers", "httpx", "datasets", "faiss")
ANSWERED = (  # Lightning's warnings to which the design already is the answer
    ".*does not have many workers.*",
    ".*your dataloader is not resumable.*",
    ".*is smaller than the logging interval.*",
    ".*isinstance\\(treespec, LeafSpec\\).*",
)


def set_up_logs(*, models: bool = True) -> None:
    """Messages without decoration; no banner and no progress bar but our own.

    Args:
        models: whether models run: their libraries take seconds to import.
    """
    if models:
        import pytorch_lightning  # noqa: F401 - sets its own level on import, which the loop below undoes
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # type: ignore[no-untyped-call, unused-ignore]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Escaped("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in ANSWERED:
        warnings.filterwarnings("ignore", message)


class _Escaped(logging.Formatter):
    """Messages in which the control characters of a row or a name are written out."""

    def format(self, record: logging.LogRecord) -> str:
        return terminal(super().format(record))
