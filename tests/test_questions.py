"""docs/questions.md quotes errors that the source still has."""

import re
from pathlib import Path

import pytest
from messages import texts

PAGE = (Path(__file__).parents[1] / "docs/questions.md").read_text("utf-8")
QUOTED = re.findall(r"^```text\n(.*?)\n```$", PAGE, re.MULTILINE | re.DOTALL)
HOLE = "[...]"  # on the page, and {} or %s in the source
SOURCE = [re.sub(r"\{\}|%s", "\0", text) for text, _ in texts()]


def test_there_are_many():
    asked = re.findall(r"^\*\*.+?\*\*", PAGE, re.MULTILINE)
    assert len(set(QUOTED)) == len(QUOTED) >= 20
    assert len(QUOTED) + len(asked) > 40


@pytest.mark.parametrize("quoted", QUOTED)
def test_a_quoted_error_is_in_the_source(quoted):
    fixed = [re.escape(part) for part in quoted.replace(f"'{HOLE}'", HOLE).split(HOLE)]
    pattern = re.compile("['\0]*.*?".join(fixed))
    assert any(pattern.search(text) for text in SOURCE), quoted


@pytest.mark.parametrize("quoted", QUOTED)
def test_an_answer_follows(quoted):
    after = PAGE.partition(f"```text\n{quoted}\n```\n")[2]
    assert re.match(r"\n(?!```)[`\w\"]", after)
