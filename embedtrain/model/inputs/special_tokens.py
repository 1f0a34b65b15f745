"""A tokenizer that ends every text in an end token, and one that can pad: what decoders often lack.

Both are settings of the tokenizer itself, so that a saved folder does the same in every other library. The
tokenizer given is never changed.
"""

from __future__ import annotations

import copy
import json
from typing import Any, cast

from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.processors import PostProcessor
from transformers import PreTrainedTokenizerBase

from embedtrain.types import InputError

ADDING = ("TemplateProcessing", "BertProcessing", "RobertaProcessing")  # those that add tokens
ROLES = ("single", "pair")


def with_end_token(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A tokenizer that ends every text in its end token, also one that is truncated.

    The end token is eos_token, else sep_token. The tokenizer itself is given back when it does so already;
    otherwise a copy whose post-processor appends the token.

    Raises:
        InputError: when there is no end token, or a tokenizer that lacks it cannot be extended.
    """
    end = tokenizer.eos_token or tokenizer.sep_token
    if end is None:
        raise InputError(
            "pooling eos needs an end token; this tokenizer has none: set eos_token in tokenizer_config.json "
            "or choose another pooling"
        )
    number = int(tokenizer.sep_token_id if tokenizer.eos_token is None else tokenizer.eos_token_id)
    if _appends(tokenizer, number):
        return tokenizer
    if not tokenizer.is_fast:
        raise InputError(
            f"{type(tokenizer).__name__} does not append its end token {end!r} and has no setting for it: "
            "use a model with a fast tokenizer (tokenizer.json), or choose another pooling"
        )
    extended = copy.deepcopy(tokenizer)
    backend = extended.backend_tokenizer
    backend.post_processor = _processor(_extended(_description(backend.post_processor), end, number))
    return extended


def with_pad_token(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A tokenizer that can pad: itself, or a copy that pads with its end token, else its unknown one.

    Which token pads is of no account, since the mask decides what is read.

    Raises:
        InputError: when it has none of the three.
    """
    if tokenizer.pad_token_id is not None:
        return tokenizer
    token = tokenizer.eos_token or tokenizer.unk_token
    if token is None:
        raise InputError(
            "the tokenizer has no padding token, nor an end or unknown token to pad with: set pad_token in "
            "its tokenizer_config.json"
        )
    padding = copy.deepcopy(tokenizer)
    padding.pad_token = token
    return padding


def _appends(tokenizer: PreTrainedTokenizerBase, number: int) -> bool:
    """Whether the tokenizer puts this token behind a text by itself."""
    read = tokenizer("a", return_special_tokens_mask=True)
    # The mask separates an added token from a text read as one: "a" may be unknown, and unknown be eos.
    return bool(read["input_ids"][-1] == number and read["special_tokens_mask"][-1])


def _extended(before: dict[str, Any] | None, end: str, number: int) -> dict[str, Any]:
    """The description of a post-processor that also appends the end token.

    Two templates in a row do not add up (the second wraps the tokens of the first one by one), so that one
    which is there is extended in place.
    """
    if before is None:
        return _template(end, number)
    kind = before["type"]
    if kind == "Sequence":
        steps = list(before["processors"])
        last = max((place for place, step in enumerate(steps) if step["type"] in ADDING), default=None)
        if last is None:
            return {**before, "processors": [*steps, _template(end, number)]}
        steps[last] = _extended(steps[last], end, number)
        return {**before, "processors": steps}
    if kind == "ByteLevel":
        return {"type": "Sequence", "processors": [before, _template(end, number)]}
    if kind == "TemplateProcessing":
        parts = {role: [*before[role], _special(end, before[role])] for role in ROLES}
        tokens = {**before["special_tokens"], end: {"id": end, "ids": [number], "tokens": [end]}}
        return {**before, **parts, "special_tokens": tokens}
    raise InputError(
        f"the tokenizer's post-processor {kind} cannot append {end!r}: write it as a "
        "TemplateProcessing in tokenizer.json, or choose another pooling"
    )


def _template(end: str, number: int) -> dict[str, Any]:
    """A text, or two, then the end token."""
    text, other = ({"Sequence": {"id": name, "type_id": place}} for place, name in enumerate("AB"))
    bare: dict[str, Any] = {"type": "TemplateProcessing", "special_tokens": {}}
    return _extended({**bare, "single": [text], "pair": [text, other]}, end, number)


def _special(end: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The end token as a part of a template, of the type of the part before it."""
    (before,) = parts[-1].values()
    return {"SpecialToken": {"id": end, "type_id": before["type_id"]}}


def _description(processor: PostProcessor | None) -> dict[str, Any] | None:
    if processor is None:
        return None
    described: dict[str, Any] = json.loads(processor.__getstate__())
    return described


def _processor(description: dict[str, Any]) -> PostProcessor:
    """The post-processor that a tokenizer.json describes; the library reads one only within a tokenizer."""
    empty = json.loads(Tokenizer(BPE()).to_str())
    whole = Tokenizer.from_str(json.dumps({**empty, "post_processor": description}))
    return cast(PostProcessor, whole.post_processor)
