import csv

from small_runs import read_rows

from embedtrain.training.metrics import FileLogger


def test_each_step_is_one_line_and_csv_has_every_column(tmp_path):
    logger = FileLogger(tmp_path)
    logger.log_metrics({"train/loss": 1.5, "epoch": 0}, step=9)
    logger.log_metrics({"val/mean": float("nan")}, step=19)
    logger.finalize("success")
    assert read_rows(logger.path) == [{"step": 9, "train/loss": 1.5}, {"step": 19, "val/mean": "nan"}]
    with (tmp_path / "metrics.csv").open() as file:
        assert list(csv.reader(file)) == [
            ["step", "train/loss", "val/mean"],
            ["9", "1.5", ""],
            ["19", "", "nan"],
        ]


def test_a_resumed_run_forgets_the_steps_it_takes_again(tmp_path):
    logger = FileLogger(tmp_path)
    for step in (9, 19, 29):
        logger.log_metrics({"train/loss": 1.0}, step=step)
    with logger.path.open("a") as file:
        file.write('{"step": 3')  # torn by a kill
    logger.forget_after(20)
    assert [line["step"] for line in read_rows(logger.path)] == [9, 19]
