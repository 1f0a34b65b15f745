"""A value of the wrong type is answered with the key, what came and what is expected."""

import pytest

NUMBERS = "must be a list of whole numbers, or null, e.g."
LISTS = "must be a list of lists of whole numbers, e.g."


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        ("evaluate", "layers=[two]", f"layers=[two]: 'two' does not fit: layers {NUMBERS} layers=[2,4]"),
        ("evaluate", "dims=64", f"dims=64: dims {NUMBERS} dims=[2,4]"),
        ("evaluate", "tasks=local", "tasks=local: tasks must be a list of texts, e.g. tasks=[name]"),
        ("evaluate", "offline=maybe", "offline=maybe: offline must be true or false, e.g. offline=true"),
        ("evaluate", "store_gb=much", "store_gb=much: store_gb must be a number, e.g. store_gb=0.5"),
        ("train", "evaluation.layers=[1,x]", "evaluation.layers=[1,x]: 'x' does not fit: "
         f"evaluation.layers {NUMBERS} evaluation.layers=[2,4]"),
        ("train", "seed=abc", "seed=abc: seed must be a whole number, e.g. seed=2"),
        ("train", "exports=[[a,2]]",
         f"exports=[[a,2]]: 'a' does not fit: exports {LISTS} exports=[[2,4],[4,4]]"),
        ("train", "optim=3", "optim=3: optim is chosen by name. There are: adamw"),
        ("train", "plan.pairs=[[1,8]", "plan.pairs=[[1,8]: cannot be read"),
        ("doctor", "doctor.rows=many",
         "doctor.rows=many: doctor.rows must be a whole number, e.g. doctor.rows=2"),
        ("doctor", "doctor.row=5", "unknown config key 'doctor.row'; did you mean 'doctor.rows'?"),
        ("evaluate", "tasks=[x] normalize=before", "normalize must be one of post, pre, got 'before'"),
        ("train", "data_root=x", "unknown config key 'data_root'; here it is 'evaluation.data_root'."),
        ("evaluate", "evaluation.data_root=x",
         "unknown config key 'evaluation.data_root'; here it is 'data_root'."),
        ("evaluate", "layer=[1]", "unknown config key 'layer'; did you mean 'layers'?"),
    ],
)  # fmt: skip
def test_a_value_of_another_type(error_of, command, words, said):
    message = error_of(command, *words.split())
    assert message.startswith(f"error: {said}")
    assert "full_key" not in message
