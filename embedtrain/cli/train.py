"""embedtrain-train: rows and a backbone in, a run folder with a trained model out."""

from __future__ import annotations

from typing import Any

from embedtrain.cli.launch import launch


def main() -> None:
    """Entry point of `embedtrain-train`."""
    launch("train", run)


def run(config: dict[str, Any]) -> None:
    """One run: measure, train, measure again, save, cut."""
    from embedtrain.cli.stages import TrainingRun  # torch and friends are slow to import; --help is not

    stages = TrainingRun(config)
    stages.evaluate_before()
    stages.fit()
    stages.evaluate_after()
    stages.publish()


if __name__ == "__main__":
    main()
