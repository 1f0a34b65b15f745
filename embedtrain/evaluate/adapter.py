"""A sub-model as mteb sees a model. Importing this module imports mteb, which takes 4-5 seconds.

mteb drives: it asks a `Cell` for the vectors of texts, or for the best documents of queries, and computes
every metric itself. Scores and result files are what mteb gives for the physically cut model.

The prompt of a text is looked up among the model's as mteb does: NAME-query, NAME, TYPE-query, TYPE, query,
where NAME is the task's (STSBenchmark), TYPE its type (STS), and "document" may stand for "query".
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from mteb import TaskMetadata
from mteb._create_dataloaders import _retrieval_texts
from mteb.models import ModelMeta, SearchEncoderWrapper
from mteb.models.abs_encoder import AbsEncoder, get_prompt
from mteb.models.model_meta import ScoringFunction
from mteb.types import PromptType
from numpy.typing import NDArray

from embedtrain.evaluate.bank import GridBank
from embedtrain.types import Role, SubModel

_SIMILARITIES_AT_ONCE = 2**26  # 256 MiB of float32: queries are searched in blocks of at most so many


class Cell(AbsEncoder):
    """The view (layer, dim) of a bank, as an mteb encoder that also searches.

    Vectors are truncated, THEN normalised. mteb's own truncation (`embed_dim`) does not normalise again,
    which costs its classifiers up to 11 points; so a truncated cell records `normalize=post` among its
    experiment settings. The full cell has no experiment settings and stands at mteb's standard path.
    """

    def __init__(self, bank: GridBank, sub: SubModel, meta: ModelMeta) -> None:
        self.bank = bank
        self.sub = sub
        self.mteb_model_meta: ModelMeta = meta
        self._corpus: Any = None

    def encode(
        self,
        inputs: Any,  # noqa: ANN401 (mteb's signature)
        *,
        task_metadata: TaskMetadata,
        prompt_type: PromptType | None = None,
        **_: Any,  # noqa: ANN401
    ) -> NDArray[np.float32]:
        """The vectors (M, dim) of the texts of a data loader, unit rows in its order."""
        return self._vectors(list(inputs.dataset["text"][:]), task_metadata, prompt_type).numpy()

    def index(self, corpus: Any, **_: Any) -> None:  # noqa: ANN401 (mteb's signature)
        """Keeps the corpus that `search` will search."""
        self._corpus = corpus

    def search(
        self,
        queries: Any,  # noqa: ANN401 (mteb's signature)
        *,
        task_metadata: TaskMetadata,
        top_k: int,
        top_ranked: Any = None,  # noqa: ANN401
        **settings: Any,  # noqa: ANN401
    ) -> dict[str, dict[str, float]]:
        """The best `top_k` documents of each query with their cosine: {query id: {document id: cosine}}.

        Reranking (documents given for each query) is left to mteb's own loop.
        """
        if top_ranked is not None:
            stock = SearchEncoderWrapper(self)
            settings["task_metadata"] = task_metadata
            stock.index(self._corpus, **settings)
            return dict(stock.search(queries, top_k=top_k, top_ranked=top_ranked, **settings))
        ids, texts = self.bank.corpus(self._corpus, _document_texts)
        docs = self._vectors(texts, task_metadata, PromptType.document)  # (N, dim)
        query_texts = list(_retrieval_texts(queries, PromptType.query)[:])
        asked = self._vectors(query_texts, task_metadata, PromptType.query)  # (Q, dim)
        block = max(1, _SIMILARITIES_AT_ONCE // max(1, len(ids)))
        found: dict[str, dict[str, float]] = {}
        query_ids = list(queries["id"][:])
        for start in range(0, len(query_ids), block):
            similarity = torch.as_tensor(self.similarity(asked[start : start + block], docs))  # (block, N)
            found.update(_best(query_ids[start : start + block], similarity, ids, top_k))
        return found

    def _vectors(self, texts: list[str], task: TaskMetadata, prompt_type: PromptType | None) -> torch.Tensor:
        # Texts of symmetric tasks (STS, classification) have no role in mteb. Unless the model has a prompt
        # for the task or its type they are read as documents, to which most models give no prompt.
        role: Role = "query" if prompt_type == PromptType.query else "document"
        prompt = get_prompt(dict(self.bank.encoder.prompts), task, prompt_type)
        return self.bank.vectors(texts, role, self.sub, prompt)


def model_meta(sub: SubModel, *, num_layers: int, width: int, run: str, revision: str) -> ModelMeta:
    """What mteb files a sub-model's results under: one model name and revision, one experiment per cut."""
    settings: dict[str, int | str] = {}
    if sub != SubModel(num_layers, width):
        settings = {"embed_dim": sub.dim, "n_layers": sub.layer}
    if sub.dim < width:
        settings["normalize"] = "post"
    return ModelMeta.create_empty(
        {
            "name": "embedtrain/" + re.sub(r"[^\w.-]+", "_", run),
            "revision": revision,
            "embed_dim": sub.dim,
            "similarity_fn_name": ScoringFunction.COSINE,
            "framework": ["PyTorch"],
            "experiment_kwargs": settings or None,
        }
    )


def _document_texts(corpus: Any) -> tuple[list[str], list[str]]:  # noqa: ANN401 (a datasets.Dataset)
    return list(corpus["id"][:]), list(_retrieval_texts(corpus, PromptType.document)[:])


def _best(
    query_ids: list[str], similarity: torch.Tensor, ids: list[str], top_k: int
) -> dict[str, dict[str, float]]:
    """The `top_k` largest of each row of (Q, N); of equal ones at the border the larger ids, as mteb does."""
    values, columns = similarity.topk(min(top_k + 1, len(ids)), dim=1)  # (Q, top_k + 1)
    found = {}
    for query_id, row, where in zip(query_ids, values.tolist(), columns.tolist(), strict=True):
        pairs = [(value, ids[column]) for value, column in zip(row, where, strict=True)]
        if len(pairs) > top_k:
            pairs.remove(min(pairs))
        found[query_id] = {doc_id: value for value, doc_id in pairs}
    return found
