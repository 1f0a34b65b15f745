"""Where a prompt ends among the tokens of the text it was put before.

A prompt and its text are tokenised as one, as the model reads them; the prompt alone can give another
number of tokens ("query: " alone ends in a token for its space, which the next word takes in). So the border
is found by the offsets of the tokens, in context. NV-Embed's reference counts the tokens of the prompt alone,
not the BOS before them, and so pools the last of them; here none is.
"""

from __future__ import annotations

from collections.abc import Sequence


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
