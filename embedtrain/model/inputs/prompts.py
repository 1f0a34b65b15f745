"""Where a prompt ends among the tokens of the text it was put before.

A prompt and its text are tokenised as one, as the model reads them; the prompt alone can give another
number of tokens ("query: " alone ends in a token for its space, which the next word takes in). So the border
is found by the offsets of the tokens, in context. NV-Embed's reference counts the tokens of the prompt alone,
not the BOS before them, and so pools the last of them; here none is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from embedtrain.types import InputError


def text_start(offsets: Sequence[tuple[int, int]], border: int) -> int | None:
    """The first token that holds some of the text, None without any; one that straddles the border does.

    Args:
        offsets: characters [start, end) of each token; [0, 0) for one that the tokenizer added.
        border: characters of the prompt.
    """
    # By the end alone: a byte-level tokenizer may report a space without its width, as [7, 7).
    return next((place for place, (_, end) in enumerate(offsets) if end > border), None)


def prompt_end(added: Sequence[int]) -> int:
    """Leading tokens to skip where the text has none of its own: all up to the last one of the prompt.

    The tokens behind it, an end token as a rule, are then pooled; where there are none, everything is.

    Args:
        added: 1 for each token that the tokenizer added (BOS, CLS, SEP, EOS), 0 for one of the prompt.
    """
    last = max((place for place, special in enumerate(added) if not special), default=-1)
    return last + 1 if last + 1 < len(added) else 0


def listed_texts(texts: object) -> list[str]:
    """One text or several as a list. Raises InputError for what is no text, or half a character in one."""
    if isinstance(texts, bytes | Mapping) or not isinstance(texts, Iterable):
        raise InputError(f"texts must be a text or a list of texts, got {texts!r}")
    listed = [texts] if isinstance(texts, str) else list(texts)
    for number, text in enumerate(listed):
        if not isinstance(text, str):
            raise InputError(f"texts[{number}] must be a text, got {text!r}")
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise InputError(f"texts[{number}] holds half a character: {text!a}")
    return listed
