"""When a measurement is taken and what it decides, with a clock of the test's own."""

from types import SimpleNamespace

import pytest

from embedtrain.files.checkpoint_folder import CheckpointFolder
from embedtrain.training.callbacks.eval_during import EvalDuring, MeasureWhileTraining, means_of
from embedtrain.types import Cell, SubModel


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def run(during, folder, *, steps, step_seconds, measure_seconds, callback=None, start=0):
    """The steps at which a run is measured, and its callback."""
    clock = Clock()

    def measure(step):
        clock.now += measure_seconds
        taken.append(step)
        return {"a": {Cell(1, 4): 0.0}}

    taken = []
    made = MeasureWhileTraining(during, measure, CheckpointFolder(folder), clock)
    if callback is not None:
        made.load_state_dict(callback.state_dict())
    trainer = SimpleNamespace(
        global_step=start,
        num_training_batches=steps,
        should_stop=False,
        loggers=[],
        save_checkpoint=lambda *_, **__: None,
        fit_loop=SimpleNamespace(_should_accumulate=lambda: False, batch_idx=start - 1),
    )
    made.on_train_start(trainer, None)
    while trainer.global_step < steps and not trainer.should_stop:
        clock.now += step_seconds
        trainer.global_step += 1
        trainer.fit_loop.batch_idx = trainer.global_step - 1
        made.on_train_batch_end(trainer, None)
    return taken, made


def test_every_so_many_steps_and_the_last(tmp_path):
    assert run(EvalDuring(every=4), tmp_path, steps=10, step_seconds=1, measure_seconds=1)[0] == [4, 8, 10]


def test_a_share_of_the_time_is_kept_but_for_the_first_and_the_last(tmp_path):
    taken, made = run(
        EvalDuring(every=1, time_share=0.1), tmp_path, steps=1000, step_seconds=1, measure_seconds=5
    )
    assert taken[:3] == [1, 90, 135], "(spent + 5) <= 0.1 (elapsed + 5), elapsed being steps + spent"
    assert made.spent / (1000 + made.spent) == pytest.approx(0.1, abs=0.006)


def test_the_time_of_an_earlier_part_counts(tmp_path):
    during = EvalDuring(every=1, time_share=0.1)
    _, before = run(during, tmp_path, steps=100, step_seconds=1, measure_seconds=5)
    taken, after = run(
        during, tmp_path, steps=200, step_seconds=1, measure_seconds=5, callback=before, start=100
    )
    assert before.spent == 15
    assert taken == [180, 200], "20 of 200 seconds at 180, with what was spent before"
    assert after.spent == 25


def test_patience_counts_from_the_last_better_one(tmp_path):
    taken, made = run(EvalDuring(every=1, patience=3), tmp_path, steps=9, step_seconds=1, measure_seconds=1)
    assert taken == [1, 2, 3, 4], "one best, then three that are not above it"
    assert made.ended
    assert made.best["mean"] == (0.0, 1)


def test_means_are_over_tasks_and_dtypes():
    found = {
        "a": {Cell(1, 4): 0.2, Cell(1, 4, "int8"): 0.4, Cell(2, 8): 1.0},
        "b": {Cell(1, 4): 0.6, Cell(1, 4, "int8"): 0.8, Cell(2, 8): 0.0},
    }
    assert means_of(found) == pytest.approx({SubModel(1, 4): 0.5, SubModel(2, 8): 0.5})
    with pytest.raises(ValueError, match="no task"):
        means_of({})
