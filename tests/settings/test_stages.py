"""What an entry of `stages` says stands in the place of what the run says; all else is shared."""

import pytest
from small_runs import compose

from embedtrain.data.entries import entries_of
from embedtrain.settings.stages import stages_of
from embedtrain.types import InputError

WORDS = [
    "name=x", "data.train=rows.jsonl", "data.batch_size=16", "optim.lr=1e-3", "plan.pairs=[[1,8],[6,384]]",
]  # fmt: skip


def staged(*entries):
    return stages_of(compose([*WORDS, f"stages=[{', '.join(entries)}]"]))


def test_without_stages_a_run_is_its_one_stage():
    settings = compose(WORDS)
    assert stages_of(settings) == [("", settings)]


def test_options_by_name_settings_merged_values_replaced():
    one, two, three = staged(
        "{name: one, step: masked, plan: full, data: {train: texts.jsonl}, trainer: {max_steps: 5}}",
        "{name: two, optim: {weight_decay: 0.5}, gather: values, queue: documents, eval_during: none}",
        "{name: three, plan: {_target_: embedtrain.objective.plan.Dims, dims: [8, 384]}}",
    )
    assert [stage.name for stage in (one, two, three)] == ["one", "two", "three"]
    assert one.settings.step.target.endswith(".Masked")
    assert one.settings.plan.target.endswith(".Full")
    assert (one.settings.data.train, one.settings.data.batch_size) == ("texts.jsonl", 16)
    assert (one.settings.trainer.max_steps, two.settings.trainer.max_steps) == (5, None)
    assert two.settings.optim.settings == {"lr": 1e-3, "weight_decay": 0.5}
    assert two.settings.plan.settings == {"pairs": [[1, 8], [6, 384]]}
    assert two.settings.gather == "values"
    assert two.settings.queue.target.endswith(".Queue")
    assert three.settings.plan.settings == {"dims": [8, 384]}
    assert three.settings.eval_during is None


def test_a_stage_has_prompts_of_its_own_by_its_data():
    one, two = staged(
        "{name: one, data: {train: [{source: weak.jsonl, prompts: {query: 'ask: '}}]}}",
        "{name: two, data: {train: [{source: hard.jsonl, prompts: {query: 'find: ', document: ''}}]}}",
    )
    prompts = [entry.read["prompts"] for each in (one, two) for entry in entries_of(each.settings.data.train)]
    assert prompts == [{"query": "ask: "}, {"query": "find: ", "document": ""}]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("masked", r"stages\[0\] must be a mapping such as"),
        ("{step: masked}", r"stages\[0\] needs a name of letters"),
        ("{name: ../x}", r"stages\[0\] needs a name of letters"),
        ("{name: x, backbone: {path: y}}", r"stages\[0\].backbone: a stage has no 'backbone' of its own"),
        ("{name: x, plann: full}", r"a stage has no 'plann' of its own; did you mean 'plan'\?"),
        ("{name: x, step: maskd}", r"stages\[0\].step=maskd does not exist; did you mean 'masked'\?"),
        (
            "{name: x, trainer: {devices: 2}}",
            r"trainer.devices is the same for all stages: set trainer.devices",
        ),
        ("{name: x, trainer: {max_step: 2}}", r"stages\[0\]: .*max_step"),
        ("{name: x, optim: {lrr: 2}}", r"stages\[0\]: optim\.lrr: AdamW has no setting 'lrr'"),
    ],
)
def test_mistakes(entry, message):
    with pytest.raises(InputError, match=message):
        staged(entry)


def test_names_are_different():
    with pytest.raises(InputError, match="two stages have the name 'x'"):
        staged("{name: x}", "{name: x}")
