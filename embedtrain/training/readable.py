"""Texts that a run would learn nothing of: those of which no token is left, or tokens without an embedding.

Looked at before the first step, in a sample of the rows, so that it costs a moment whatever the data.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from embedtrain.data.module import DataModule
from embedtrain.data.read.sources import Example
from embedtrain.data.stores.memory import some_rows
from embedtrain.model.backbone.own_code import word_table
from embedtrain.model.encoder import Encoder
from embedtrain.model.inputs.tokenizer import TextTokenizer
from embedtrain.types import InputError, Role

LOG = logging.getLogger(__name__)
ROWS = 256  # of each dataset whose texts are looked at
Behind = tuple[Role, str | None]  # a role, and the prompt of the rows themselves


def check_rows(data: DataModule, encoder: Encoder) -> None:
    """Refuse, or count in the log, rows that teach nothing.

    Raises:
        InputError: for a prompt that leaves no room, texts of which nothing is left in all rows looked at,
            or a token that has no embedding.
    """
    for item in data.datasets:
        rows = some_rows(item.store)
        if isinstance(encoder.process, TextTokenizer):
            _check_texts(item.store.task, [rows[n] for n in _spread(len(rows))], encoder, encoder.process)


def _spread(count: int) -> Sequence[int]:
    return range(0, count, max(1, count // ROWS))


def _check_texts(task: str, rows: Sequence[Example], encoder: Encoder, process: TextTokenizer) -> None:
    texts: dict[Behind, list[str]] = {}
    for row in rows:
        texts.setdefault(("query", row.prompts.query), []).append(str(row.query))
        documents = map(str, (*row.positives, *row.negatives))
        texts.setdefault(("document", row.prompts.document), []).extend(documents)
    nothing, looked_at, example = 0, 0, ""
    for (role, prompt), own in texts.items():
        if not own:
            continue
        _check_prompt(process, role, prompt)
        bare, *read = process.read(["", *own], role, [prompt] * (len(own) + 1))
        _check_embedded(encoder, process, [bare.ids, *(item.ids for item in read)])
        empty = [text for text, item in zip(own, read, strict=True) if item.ids == bare.ids]
        nothing, looked_at, example = nothing + len(empty), looked_at + len(own), (empty or [example])[0]
    if nothing and nothing == looked_at:
        raise InputError(
            f"data: {task}: of all {looked_at} texts looked at no token is left, e.g. {example[:40]!r}: "
            f"raise backbone.max_length ({process.max_length}), or repair the rows"
        )
    if nothing:
        LOG.warning(
            "%s: of %d of %d texts looked at no token is left, e.g. %r: they all have one embedding",
            task, nothing, looked_at, example[:40],
        )  # fmt: skip


def _check_prompt(process: TextTokenizer, role: Role, prompt: str | None) -> None:
    (chosen,) = process.chosen(1, role, [prompt])
    tokens = len(process.tokenizer(chosen, truncation=False, verbose=False)["input_ids"]) if chosen else 0
    if chosen and tokens >= process.max_length:
        raise InputError(
            f"the prompt {chosen[:60]!r} of a {role} has {tokens} tokens with the special ones, and "
            f"max_length {process.max_length} leaves no room for a text: raise backbone.max_length, or "
            "shorten the prompt"
        )


def _check_embedded(encoder: Encoder, process: TextTokenizer, read: Sequence[Sequence[int]]) -> None:
    """Refuse tokens beyond the table of embeddings, in the rows or as words that further rows may have."""
    table = word_table(encoder.backbone.model).num_embeddings
    used = {number for ids in read for number in ids if number >= table}
    # A special token beyond the table marks pictures and the like; a word is there to be read.
    added = process.tokenizer.added_tokens_decoder
    special = {number for number, token in added.items() if token.special}
    words_beyond = {number for number in process.tokenizer.get_vocab().values() if number >= table}
    lacking = used | (words_beyond - special)
    if lacking:
        words = process.tokenizer.convert_ids_to_tokens(sorted(lacking))
        raise InputError(
            f"{len(lacking)} words of the tokenizer have no embedding, e.g. {words[0]!r}: the model has "
            f"{table} embeddings. Call model.resize_token_embeddings(len(tokenizer)) and save the model "
            "again, or take the tokenizer that it was trained with"
        )
