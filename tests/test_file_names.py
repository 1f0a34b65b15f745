import pytest

from embedtrain.escaping import file_name, plain_name

ALIKE = ["a b", "a/b", "a-b", "a\u202eb", "a--b", "../a", "a" * 300, "a" * 301, "", ".", "\ud800"]


def test_no_two_texts_share_a_file():
    assert len({file_name(text) for text in ALIKE}) == len(ALIKE)


@pytest.mark.parametrize("text", ALIKE)
def test_a_name_is_one_part_of_a_path_and_short(text):
    name = file_name(text)
    assert name not in ("", ".", "..")
    assert name.isascii()
    assert "/" not in name
    assert len(name) < 120


@pytest.mark.parametrize("text", ["STS.12", "my-task_3", "L6_D384"])
def test_a_plain_text_is_its_own_name(text):
    assert file_name(text) == plain_name(text) == text
