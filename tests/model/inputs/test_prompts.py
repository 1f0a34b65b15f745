import pytest
import torch
from transformers import AutoTokenizer

from embedtrain.model.folder.export import load_encoder
from embedtrain.model.inputs.prompts import prompt_end, text_start


@pytest.mark.parametrize(
    ("offsets", "border", "expected"),
    [
        ([(0, 0), (0, 3), (3, 5), (0, 0)], 3, 2),
        ([(0, 0), (0, 3), (3, 5), (0, 0)], 4, 2),  # straddles
        ([(0, 0), (0, 3), (3, 5), (0, 0)], 5, None),
        ([(0, 3), (4, 4), (5, 5)], 4, 2),  # spaces without their width
        ([(0, 0), (0, 0)], 0, None),
        ([], 3, None),
    ],
)
def test_text_starts_where_a_token_ends_behind_the_prompt(offsets, border, expected):
    assert text_start(offsets, border) == expected


@pytest.mark.parametrize(
    ("added", "expected"), [([1, 0, 0, 1], 3), ([0, 0, 1, 1], 2), ([1, 0, 0], 0), ([1, 1], 0), ([], 0)]
)
def test_prompt_ends_with_its_last_token_unless_nothing_would_be_left(added, expected):
    assert prompt_end(added) == expected


@pytest.fixture(scope="module")
def encoder(tiny_bert):
    return load_encoder(tiny_bert, pooling="mean")


def test_a_given_prompt_is_read_before_every_text(encoder, sentences):
    given = encoder.encode(sentences, (2, 4), prompt="a big ").values
    glued = encoder.encode([f"a big {text}" for text in sentences], (2, 4)).values
    torch.testing.assert_close(given, glued, rtol=0, atol=1e-6)
    assert not torch.allclose(given, encoder.encode(sentences, (2, 4)).values, atol=1e-3)


def test_a_skipped_prompt_is_read_and_not_pooled(encoder, tiny_bert, sentences):
    process = encoder.process
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    try:
        process.include_prompt = False
        values = encoder.encode(sentences, (3,), prompt="a big: ").values[0]
    finally:
        process.include_prompt = True
    for text, vector in zip(sentences, values, strict=True):
        ids = torch.tensor([tokenizer(f"a big: {text}")["input_ids"]])
        model = encoder.backbone.cut(3)
        with torch.no_grad():
            states = model.eval()(input_ids=ids).last_hidden_state[0]  # (T, H)
        expected = states[4:].mean(0)  # [CLS] a big :
        torch.testing.assert_close(vector, expected, rtol=0, atol=1e-5)
