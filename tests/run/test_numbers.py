"""What loggers and sweepers get of a run: settings, learning rates, scores before and after, one number."""

import importlib.util
import sys

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from small_runs import command, compose, read_rows

from embedtrain.cli.line.wandb_environment import with_wandb
from embedtrain.files.scores import main_scores, read_scores
from embedtrain.run.numbers import check_optimized
from embedtrain.training import loggers
from embedtrain.training.metrics import FileLogger
from embedtrain.types import InputError

CSV = "+logger._target_=pytorch_lightning.loggers.CSVLogger"


class Recording(Sweeper):
    """A sweeper as optuna's and ax's plugins are: it asks one job after the other for its number."""

    def setup(self, *, hydra_context, task_function, config):
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments):
        for number, lr in enumerate((1e-3, 1e-2)):
            (job,) = self.launcher.launch([[*arguments, f"optim.lr={lr}"]], initial_job_idx=number)
            Recording.numbers.append(job.return_value)


@pytest.fixture
def words(small_run, small_data, tmp_path):
    more = ["trainer.max_steps=2", f"output_root={tmp_path}", "data.validation_rows=8"]
    return [*small_run, *more, "evaluation.tasks=[find]", f"evaluation.data_root={small_data}"]


def test_a_sweeper_gets_the_number_of_each_job(words, tmp_path, monkeypatch):
    module = type(sys)("hydra_plugins.recording")
    module.Recording = Recording
    monkeypatch.setitem(sys.modules, "hydra_plugins.recording", module)
    monkeypatch.setattr(Recording, "__module__", "hydra_plugins.recording")
    plugins = Plugins.instance()
    monkeypatch.setitem(plugins.class_name_to_class, "hydra_plugins.recording.Recording", Recording)
    node = {"_target_": "hydra_plugins.recording.Recording"}
    ConfigStore.instance().store(group="hydra/sweeper", name="recording", node=node, provider="test")
    monkeypatch.setattr(Recording, "numbers", [], raising=False)
    given = ["--multirun", "hydra/sweeper=recording", "name=x_${hydra:job.num}"]
    command("train", *words, *given)
    means = []
    for name in ("x_0", "x_1"):
        scores = main_scores(read_scores(tmp_path / name / "scores.jsonl"))
        after = [score.value for score in scores if score.step == 2]
        means.append(sum(after) / len(after))  # one task, so cells count alike
    assert Recording.numbers == pytest.approx(means)
    monkeypatch.setattr(Recording, "numbers", [])
    without = [word for word in words if not word.startswith("evaluation.")]
    command("train", *without, *given, "optimized_metric=train/lr", f"output_root={tmp_path}/v")
    rows = [read_rows(tmp_path / f"v/x_{number}/metrics.jsonl") for number in (0, 1)]
    assert Recording.numbers == [[row["train/lr"] for row in one if "train/lr" in row][-1] for one in rows]
    assert Recording.numbers[1] == pytest.approx(10 * Recording.numbers[0])


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("loss", "metrics are train/..., val/..."),
        ("val/mean", "the run has no val/ metrics; give e.g. data.validation_rows=500"),
        ("after/mean", "evaluation.tasks=[local]"),
        ("eval/mean", "eval_during=sweep"),
    ],
)
def test_a_metric_that_the_run_will_not_have_is_refused_first(small_run, metric, said):
    with pytest.raises(InputError) as refused:
        check_optimized(compose([*small_run, "name=x", f"optimized_metric={metric}"]))
    assert said in str(refused.value)


def test_a_run_too_short_for_a_line_has_no_number(small_run, tmp_path):
    words = [word for word in small_run if not word.startswith("trainer.log")]
    command("train", *words, "name=x", f"output_root={tmp_path}", "trainer.max_steps=1")
    assert not (tmp_path / "x/metrics.jsonl").exists()
    assert (tmp_path / "x/model").exists()


def test_a_mistyped_metric_is_answered_once_all_is_written(words, tmp_path, error_of):
    said = error_of("train", *words, "name=x", "optimized_metric=val/maen")
    assert "did you mean 'val/mean'?" in said
    assert (tmp_path / "x/model").exists()


def test_a_logger_gets_settings_rates_and_scores(words, tmp_path, monkeypatch):
    class Seen(FileLogger):
        params, lines, ended = [], [], []

        def log_hyperparams(self, params):
            self.params.append(params)

        def log_metrics(self, metrics, step=None):
            self.lines.append((step, dict(metrics)))

    seen = Seen(tmp_path)
    monkeypatch.setattr(loggers, "others", lambda trainer: [seen])
    command("train", *words, "name=x", "evaluation.layers=[4]", "evaluation.dims=[32]")
    (params,) = seen.params
    assert params["optim"]["weight_decay"] == 0.01, "also what nobody gave"
    values = {
        when: main_scores([one for one in read_scores(tmp_path / "x/scores.jsonl") if one.step == step])[
            0
        ].value
        for when, step in (("before", 0), ("after", 2))
    }
    expected = [
        (step, {f"{when}/{name}": values[when] for name in ("find_L4_D32", "mean_L4_D32", "mean")})
        for when, step in (("before", 0), ("after", 1))
    ]
    assert seen.lines == expected
    rates = [row["train/lr"] for row in read_rows(tmp_path / "x/metrics.jsonl") if "train/lr" in row]
    assert len(rates) == 2
    assert 0 < min(rates) <= max(rates) <= 1e-3


def test_the_wandb_run_holds_the_scores_and_ends_after_them(words, tmp_path, monkeypatch):
    events = []

    class Run:
        id, config = "abc", type("Config", (), {"update": lambda _, given, **more: events.append(given)})()

        def log(self, given):
            events.append(given)

        def finish(self, exit_code):
            events.append(exit_code)

        def __getattr__(self, name):
            return lambda *args, **kwargs: None

    class Wandb:
        run = None

        def init(**settings):
            Wandb.run = Run()
            events.append(settings)
            return Wandb.run

    import wandb.sdk.lib
    import wandb.wandb_run  # noqa: F401

    monkeypatch.setitem(sys.modules, "wandb", Wandb)
    for name, value in {"PROJECT": "mine", "NAME": "theirs", "MODE": "online"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    command("train", *words, "name=x", "logger=wandb", "logger.project=typed")
    assert (events[0]["project"], events[0]["name"]) == ("typed", "theirs")
    assert events[1]["trainer"]["max_steps"] == 2
    assert "train/lr" in events[2]
    assert "before/mean" in events[-3]
    assert "after/mean" in events[-2]
    assert events[-1] == 0, "it ends after the scores"


@pytest.mark.parametrize(
    ("environment", "words", "expected"),
    [
        ({}, [], ("embedtrain", "x", True, None)),
        ({"WANDB_PROJECT": "p", "WANDB_NAME": "n"}, [], ("p", "n", True, None)),
        ({"WANDB_PROJECT": "p"}, ["logger.project=embedtrain"], ("embedtrain", "x", True, None)),
        ({"WANDB_PROJECT": "p"}, ["logger.project=q"], ("q", "x", True, None)),
        ({"WANDB_MODE": "online"}, [], ("embedtrain", "x", False, None)),
        ({"WANDB_MODE": "disabled"}, [], ("embedtrain", "x", False, "disabled")),
        ({"WANDB_MODE": "online"}, ["logger.offline=true"], ("embedtrain", "x", True, None)),
    ],
)
def test_wandb_variables_count_unless_a_word_says_otherwise(small_run, environment, words, expected):
    settings = compose([*small_run, "name=x", "logger=wandb", *words])
    found = with_wandb(settings, environment, words).logger.settings
    assert (found["project"], found["name"], found["offline"], found.get("mode")) == expected


@pytest.mark.parametrize("logger", ["tensorboard", "mlflow"])
def test_a_logger_without_its_package_is_one_line(words, error_of, logger):
    if importlib.util.find_spec(logger):
        pytest.skip(f"needs {logger} to be missing")
    said = error_of("train", *words, "name=x", f"logger={logger}")
    assert "lacks a package" in said
    assert "logger=files" in said


def test_a_logger_that_cannot_begin_is_one_line(words, error_of, monkeypatch):
    def refuse(*_):
        raise RuntimeError("api_key not configured\nmore")

    monkeypatch.setattr("pytorch_lightning.loggers.CSVLogger.log_hyperparams", refuse)
    said = error_of("train", *words, "name=x", CSV)
    assert "CSVLogger cannot begin (api_key not configured). logger=files" in said
