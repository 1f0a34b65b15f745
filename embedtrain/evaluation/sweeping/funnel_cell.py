"""A funnel as mteb sees a model. Importing this module imports mteb, which takes 4-5 seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from mteb import TaskMetadata
from mteb.models import ModelMeta
from mteb.results import TaskResult
from mteb.types import PromptType
from torch import Tensor

from embedtrain.evaluation.mteb_private import Untyped, texts_of_table
from embedtrain.evaluation.sweeping.adapter import AS_CUT, ServedCell, Serving, ids_and_texts
from embedtrain.evaluation.sweeping.funnel import Funnel, cascade, shortlist
from embedtrain.evaluation.vectors.bank import GridBank
from embedtrain.evaluation.vectors.search import Hits
from embedtrain.types import Cell

_AT_ONCE = 2**26  # 256 MiB of float32: similarities of a block of queries in the first stage
Stage = tuple[Tensor, Tensor]  # unit rows of a sub-model: queries (Q, d), documents (N, d)


class FunnelCell(ServedCell):
    """Searches through the stages of a funnel, all served from one bank; encodes as its last sub-model.

    What the last stage no longer looks at is not found: metrics deeper than the last `keep` see nothing
    there.
    """

    def __init__(self, bank: GridBank, funnel: Funnel, meta: ModelMeta, serving: Serving = AS_CUT) -> None:
        super().__init__(bank, Cell(*funnel.last), meta, serving)
        self.funnel = funnel
        self.documents: dict[tuple[str, str], int] = {}  # (split, subset) -> size of the corpus
        self._stages = [ServedCell(bank, Cell(*sub), meta, serving) for sub in funnel.cells]

    def search(
        self,
        queries: Untyped,
        *,
        task_metadata: TaskMetadata,
        top_k: int,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        **settings: Untyped,
    ) -> Hits:
        """The best `top_k` of what the last stage ordered: {query id: {document id: its cosine there}}.

        Where documents are given for each query (`top_ranked`) the funnel runs over those.
        """
        ids, texts = self.bank.corpus(self._corpus, ids_and_texts)
        names, asked = list(queries["id"][:]), texts_of_table(queries, "query")
        self.documents[settings["hf_split"], settings["hf_subset"]] = len(ids)
        stages = [
            (
                stage._unit(asked, task_metadata, PromptType.query),
                stage._unit(texts, task_metadata, PromptType.document),
            )
            for stage in self._stages
        ]
        if top_ranked is None:
            return self._best(names, stages, ids, top_k)
        row = {doc_id: position for position, doc_id in enumerate(ids)}
        hits: Hits = {name: {} for name in names}
        for position, name in enumerate(names):
            if given := list(top_ranked.get(name) or ()):
                rows = torch.tensor([row[doc_id] for doc_id in given])
                some = [(query[position : position + 1], docs[rows]) for query, docs in stages]
                hits.update(self._best([name], some, given, top_k))
        return hits

    def add_cost(self, result: TaskResult) -> None:
        """Puts what one query's search costs beside mteb's metrics of each split and subset."""
        for split, scores in result.scores.items():
            for score in cast("list[dict[str, Any]]", scores):
                documents = self.documents[split, score["hf_subset"]]
                score["search_multiply_adds"] = self.funnel.cost(documents)
                score["search_share"] = self.funnel.share(documents)

    def _best(self, names: Sequence[str], stages: Sequence[Stage], ids: Sequence[str], top_k: int) -> Hits:
        hits: Hits = {}
        block = max(1, _AT_ONCE // max(1, len(ids)))
        for start in range(0, len(names), block):
            part = [(query[start : start + block], docs) for query, docs in stages]
            neighbours = shortlist(*part[0], self.funnel.keep[0])
            numbers, cosines = cascade(neighbours, self.funnel.keep, part[1:])
            for name, where, values in zip(
                names[start : start + block], numbers.tolist(), cosines.tolist(), strict=True
            ):
                pairs = list(zip(where, values, strict=True))[:top_k]
                hits[name] = {ids[number]: value for number, value in pairs}
        return hits


def funnel_meta(funnel: Funnel, last: ModelMeta) -> ModelMeta:
    """What mteb files a funnel's results under, given the meta of its last sub-model: an experiment."""
    stages = str(funnel).removeprefix("funnel(").removesuffix(")").replace(">", "-")
    settings = {**(last.experiment_kwargs or {}), "funnel": stages}
    return last.model_copy(update={"experiment_kwargs": settings})
