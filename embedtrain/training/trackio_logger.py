"""Metrics in trackio, the local dashboard of Hugging Face, which Lightning has no logger for."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only


class TrackioLogger(Logger):
    """Logs to a project of trackio on this machine; `trackio show --project PROJECT` shows it.

    Args:
        project: of trackio.
        name: of the run there; with a run of that name, trackio adds a number.
        version: name of a run there that goes on.
        save_dir: the run folder; trackio keeps its files where TRACKIO_DIR says.

    Raises:
        ImportError: if trackio is not installed.
    """

    def __init__(
        self,
        project: str = "embedtrain",
        name: str | None = None,
        version: str | None = None,
        save_dir: str | Path | None = None,
    ) -> None:
        super().__init__()
        import trackio

        self._trackio, self._project, self._name, self._version = trackio, project, name, version
        self._save_dir = save_dir
        self._run: Any = None

    @property
    def name(self) -> str:
        """The project."""
        return self._project

    @property
    def version(self) -> str | None:
        """The run's name in trackio; None before anything is logged."""
        return self._version

    @property
    def save_dir(self) -> str | None:
        """The run folder."""
        return None if self._save_dir is None else str(self._save_dir)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Begin the run with these settings."""
        self._begin(dict(vars(params) if isinstance(params, Namespace) else params))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log some numbers of a step."""
        self._begin({}).log(dict(metrics), step=step)

    @rank_zero_only
    def end(self) -> None:
        """End the run: what is logged is on the disk."""
        if self._run is not None:
            self._run.finish()
            self._run = None

    def _begin(self, config: dict[str, Any]) -> Any:  # noqa: ANN401 - trackio's run
        if self._run is None:
            resume = "never" if self._version is None else "allow"
            self._run = self._trackio.init(
                self._project, self._version or self._name, config=config, resume=resume, embed=False
            )
            self._version = self._run.name
        return self._run
