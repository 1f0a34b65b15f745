"""embedtrain-train: rows and a backbone in, a run folder with a trained model out."""

from __future__ import annotations

from typing import Any

from embedtrain.cli.launch import launch


def main() -> None:
    """Entry point of `embedtrain-train`."""
    launch("train", run)


def run(config: dict[str, Any]) -> None:
    """One run: measure, train, measure again, save, cut."""
    # torch and friends are slow to import; --help is not
    from embedtrain.cli.stages import TrainingRun, leads
    from embedtrain.cli.stopping import leave
    from embedtrain.train.stopping import Stopped, StopRequest

    try:
        with StopRequest() as stop:
            stages = TrainingRun(config, stop)
            stages.evaluate_before()
            stages.fit()
            stages.evaluate_after()
            stages.publish()
    except Stopped as stopped:
        leave(stopped, leads=leads())


if __name__ == "__main__":
    main()
