"""Each text twice: as a query and as its own positive, which dropout makes two vectors.

Letters: B texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from embedtrain.content_ids import content_id
from embedtrain.data.order.draw import Pick
from embedtrain.model.guides.keys import text_keys
from embedtrain.model.inputs.tokenizer import TextTokenizer
from embedtrain.training.steps.contrastive.collate import stack_inputs
from embedtrain.training.steps.texts.windows import read_texts, texts_of
from embedtrain.types import Batch, Inputs, Links, Processor


class TwiceCollate(NamedTuple):
    """The texts of rows, each encoded twice; equal texts of a batch are no negatives of each other.

    Fields as of `PairCollate`, and the seed of windows.
    """

    process: TextTokenizer
    guide_process: Processor | None = None
    seed: int = 0

    def __call__(self, picks: Sequence[Pick], step: int) -> Batch:
        """The batch of a step."""
        read = read_texts(picks, step, self.process, self.seed).read
        texts = [text for item in picks for text in texts_of(item)]
        owners = [item for item in picks for _ in texts_of(item)]
        count, numbers = len(texts), torch.arange(len(texts))
        ids = torch.tensor([content_id(text) for text in texts])
        links = Links(
            content_ids=ids.repeat(2),
            query=numbers,
            docs=numbers + count,
            owner=numbers,
            positive=numbers,
            known=ids,
            known_owner=numbers,
            task=torch.tensor([content_id(item.example.task) for item in owners]),
            rows=torch.tensor([item.number for item in owners]),
            scores=None,
        )
        guide = None
        if self.guide_process is not None:
            guide = _twice(self.guide_process(texts, "document"))
            guide = guide._replace(keys=text_keys(guide))
        return Batch(_twice(self.process.pad(read)), links, guide)


def _twice(inputs: Inputs) -> Inputs:
    return stack_inputs([inputs, inputs])
