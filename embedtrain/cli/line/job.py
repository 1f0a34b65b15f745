"""The words of the job that Hydra runs now: those of the command line, or of one job of a sweep."""

from __future__ import annotations

from hydra.core.hydra_config import HydraConfig


def job_words() -> list[str]:
    """The recipe, the folder of own options and every setting that were typed; none outside a job."""
    if not HydraConfig.initialized():
        return []
    facts = HydraConfig.get()
    own = [source.path for source in facts.runtime.config_sources if source.provider == "command-line"]
    recipe = [] if facts.job.config_name == "train" else [f"recipe={facts.job.config_name}"]
    folders = [word for path in own for word in ("--config-dir", path)]
    return [*folders, *recipe, *facts.overrides.task]
